"""What the options of train.py mean: the configuration they make of a preset."""

from dataclasses import replace
from typing import Any

from dnnlib.dataclass_values import override_all, require
from training.config import AugmentConfig, DatasetSpec, RunConfig
from training.presets import PERFORMANCE, preset, with_bounded_p
from training.schedule import highest

FIELDS = {  # group of the configuration -> option -> field
    "data": {"cond": "cond", "mirror": "mirror", "subset": "subset", "workers": "workers",
             "cache": "cache"},
    "generator": {"g_dict": "widths", "num_layers": "layers", "depth": "head_width", "minimum_head": "minimum_heads",
                  "linformer": "linformer"},
    "discriminator": {"darch": "architecture", "freezed": "freeze_layers"},
    "loss": {"gamma": "r1_gamma"},
    "augment": {"aug": "mode", "p": "p", "target": "target", "augpipe": "pipe"},
    "schedule": {"kimg": "kimg", "batch": "batch", "batch_gpu": "batch_gpu", "seed": "seed", "tick": "tick_kimg",
                 "snap": "snap_ticks", "state_kimg": "state_kimg", "keep": "keep"},
    "performance": {"precision": "precision", "compile": "compile"},
}  # fmt: skip


def check_options(options: dict[str, Any]) -> None:
    """Raise ConfigError where two options contradict each other."""
    for name in ("data", "outdir"):
        require(bool(options[name].strip()), f"--{name} is empty; name a path")
    require(not options["force"] or options["resume"] == "latest", "--force goes with --resume=latest")
    require(
        not options["allow_tf32"] or options["precision"] in ("auto", "tf32"),
        f"--allow-tf32=1 means --precision=tf32, but --precision={options['precision']} is given: leave one of them out",
    )
    require(
        not options["freezed"] or options["resume"] is not None,
        "--freezed keeps layers as they are, which makes sense only for trained ones: add --resume=FILE",
    )


def configure(options: dict[str, Any], path: str, spec: DatasetSpec, gpus: int) -> RunConfig:
    """The preset with what the command line changes. Raises ConfigError."""
    if options["batch_gpu"] == "auto":  # found later
        options = options | {"batch_gpu": None}
    config = preset(options["cfg"], spec, gpus)
    config = config.changed(
        data={"path": path}, schedule={"metrics": metric_names(options["metrics"])}, performance=PERFORMANCE
    )
    settings = [split_setting(setting) for setting in options["settings"]]
    kinds = [setting for setting in settings if setting[0].endswith(".kind")]  # they decide which others there are
    config = override_all(config, kinds)
    config = replace(config, generator=config.generator.fitted(spec))
    for group, names in FIELDS.items():
        config = config.changed(**{group: given_fields(options, names, getattr(config, group))})
    if options["resume"] not in (None, "latest"):  # fine-tuning starts close to its goal
        config = config.changed(augment={"speed_kimg": 100.0}, ema={"rampup": None})
    if options["allow_tf32"]:
        config = config.changed(performance={"precision": "tf32"})
    config = with_bounded_p(config)
    config = override_all(config, [setting for setting in settings if setting not in kinds])
    check_augmentation(options, config.augment)
    return config


def check_augmentation(options: dict[str, Any], augment: AugmentConfig) -> None:
    """Raise ConfigError where an option means nothing for the kind of augmentation, or its probability does not suit it."""
    is_fixed = augment.mode == "fixed"
    require(options["p"] is None or is_fixed, "--p sets the probability of --aug=fixed: give both or leave --p out")
    require(
        not is_fixed or options["p"] is not None or highest(augment.p) > 0,
        "--aug=fixed needs its probability: add --p=0.2, for instance",
    )
    for name, means_something in (("target", augment.mode == "ada"), ("augpipe", augment.mode != "noaug")):
        require(
            options[name] is None or means_something,
            f"--{name} means nothing with augment.mode={augment.mode}; use --aug=ada, or leave --{name} out",
        )
    require(
        not is_fixed or highest(augment.p) <= augment.max_p,
        f"augment.p={augment.p} (--p) is above the bound of {augment.max_p} that holds with Linformer; to raise it: "
        f"--set augment.max_p={highest(augment.p)}",
    )


def split_setting(setting: str) -> tuple[str, str]:
    """Field and value of a --set. Raises ConfigError."""
    name, equals, text = (part.strip() for part in setting.partition("="))
    require(bool(equals), f"--set {setting}: write it as field=value, such as loss.r1_gamma=0.1")
    option = {"data.path": "--data", "data.cond": "--cond", "preset": "--cfg"}.get(name)
    require(option is None, f"--set {name} cannot be changed; use {option}")
    return name, text


def given_fields(options: dict[str, Any], names: dict[str, str], config: Any) -> dict[str, Any]:
    """The fields of a group that options set. Raises ConfigError for an option that networks or loss of this kind lack."""
    given = {name: field for name, field in names.items() if options[name] is not None}
    for name, field in given.items():
        require(
            hasattr(config, field),
            f"--{name} has no meaning for --set {getattr(config, 'group', '')}.kind={getattr(config, 'kind', '')}",
        )
    return {field: options[name] for name, field in given.items()}


def metric_names(text: str) -> tuple[str, ...]:
    """The metrics of --metrics; raises ValueError for one that is not known. Says what auto leaves out and why."""
    from metrics.registry import parse_names
    from training.evaluation.snapshots import default_metrics

    if text.lower() == "auto":
        names, reason = default_metrics()
        if reason:
            print(reason)
        return names
    return () if text.lower() == "none" else tuple(parse_names(text))
