"""Train a Styleformer on a data set of pictures."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dnnlib.dataclass_values import ConfigError, override
from dnnlib.rundir import create_run_dir, run_dirs, tee_output
from training.config import ARCHITECTURES, AUGMENT_MODES, AUGMENT_PIPES, RunConfig
from training.presets import ALIASES, PRESETS, preset

OPTIONS_FILE = "training_options.json"
FREE_TO_CHANGE = ("kimg", "tick_kimg", "snap_ticks", "state_kimg", "keep", "metrics")  # of schedule, when a run goes on


def split_list(value: str) -> list[str]:
    """The words of a comma-separated list; none of "none" or nothing."""
    return [] if value.lower() in ("", "none") else [word.strip() for word in value.split(",") if word.strip()]


def int_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """A comma-separated list of whole numbers, such as 1024,512,512."""
    try:
        return None if value is None else tuple(int(word) for word in value.strip("[] ").split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not a list of whole numbers such as 1024,512,512") from None


def metric_names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Metric names, checked before any work."""
    from metrics.registry import parse_names

    names = split_list(value)
    try:
        return tuple(parse_names(",".join(names))) if names else ()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--outdir", required=True, metavar="DIR", help="Parent of the numbered run folders.")
@click.option("--data", required=True, metavar="PATH", help="Data set: zip or folder made by dataset_tool.py.")
@click.option("--cfg", default="auto", metavar="NAME", help=f"Preset: {', '.join([*PRESETS, *ALIASES])}.")
@click.option("--gpus", default=1, metavar="N", help="GPUs to use; without any, the CPU is used.")
@click.option("--cond", type=bool, metavar="BOOL", help="Train on the labels of the data set.  [default: preset]")
@click.option("--mirror", type=bool, metavar="BOOL", help="Also use every picture flipped.  [default: preset]")
@click.option("--subset", type=click.IntRange(1), metavar="N", help="Use only N pictures.  [default: all]")
@click.option("--kimg", type=float, metavar="KIMG", help="Thousands of pictures to train on.  [default: preset]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Pictures an optimizer step.  [default: preset]")
@click.option(
    "--batch-gpu", type=click.IntRange(1), metavar="N", help="Pictures a forward pass.  [default: batch / gpus]"
)
@click.option("--gamma", type=click.FloatRange(0), metavar="X", help="Weight of the R1 penalty.  [default: preset]")
@click.option("--aug", type=click.Choice(AUGMENT_MODES), help="Augmentation.  [default: preset]")
@click.option("--p", type=click.FloatRange(0, 1), metavar="X", help="Augmentation probability for --aug=fixed.")
@click.option("--target", type=click.FloatRange(0, 1), metavar="X", help="Target of --aug=ada.  [default: 0.6]")
@click.option("--augpipe", type=click.Choice(AUGMENT_PIPES), help="Transforms of the augmentation.  [default: bgc]")
@click.option(
    "--g_dict", callback=int_list, metavar="LIST", help="Token width of each generator stage.  [default: preset]"
)
@click.option(
    "--num_layers", callback=int_list, metavar="LIST", help="Encoder layers of each stage.  [default: preset]"
)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Channels of an attention head.  [default: preset]")
@click.option("--minimum_head", type=click.IntRange(1), metavar="N", help="Least number of heads.  [default: preset]")
@click.option("--linformer", type=bool, metavar="BOOL", help="Linformer attention from 32 px.  [default: preset]")
@click.option("--darch", type=click.Choice(ARCHITECTURES), help="Discriminator architecture.  [default: preset]")
@click.option(
    "--freezed", type=click.IntRange(0), metavar="N", help="First discriminator layers not trained.  [default: 0]"
)
@click.option("--resume", metavar="latest|FILE", help="Go on with the newest matching run, or start from a snapshot.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed.  [default: 0]")
@click.option(
    "--metrics", default="none", callback=metric_names, metavar="LIST", help="Metrics at each snapshot, or none."
)
@click.option("--snap", type=click.IntRange(1), metavar="TICKS", help="Ticks between two snapshots.  [default: preset]")
@click.option("--tick", type=float, metavar="KIMG", help="Thousands of pictures a tick.  [default: preset]")
@click.option(
    "--state-kimg", type=float, metavar="KIMG", help="Between two state files.  [default: snapshots and 5 minutes]"
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Newest snapshots to keep, 0 = all.  [default: 0]")
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that read pictures.  [default: 1]")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any setting, e.g. --set loss.r1_gamma=0.1"
)
@click.option("--dry-run", "-n", is_flag=True, help="Print the settings and stop.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Train a Styleformer on a data set of pictures.

    \b
    Examples:
      python train.py --outdir=~/training-runs --data=~/demo.zip --cfg=demo --cond=1
      python train.py --outdir=~/training-runs --data=~/cifar10.zip --cfg=cifar --gpus=1
    Go on after a stop: type the same line with --resume=latest.
    """
    try:
        launch(options)
    except ValueError as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error


def launch(options: dict[str, Any]) -> None:
    """Open the data, settle the configuration and the run folder, and train."""
    from training.dataset import ImageDataset

    path = Path(options["data"]).expanduser()
    dataset = ImageDataset(path)
    config = configure(options, dataset, str(path))
    config.check(dataset.spec, options["gpus"])
    data = config.data
    if data.cond or data.mirror or data.subset:
        dataset = ImageDataset(path, data.cond, data.mirror, data.subset, seed=config.schedule.seed)
    if options["dry_run"]:
        print(json.dumps(config.to_dict(), indent=2))
        return
    outdir = Path(options["outdir"]).expanduser()
    run_dir, saved = continue_run(outdir, config) if options["resume"] == "latest" else (None, None)
    if run_dir is None:
        run_dir = create_run_dir(outdir, describe(config, path))
        (run_dir / OPTIONS_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    init_from = None if options["resume"] in (None, "latest") else options["resume"]
    with tee_output(run_dir / "log.txt"):
        train(config, dataset, run_dir, saved, init_from)


def train(config: RunConfig, dataset: Any, run_dir: Path, saved: dict[str, Any] | None, init_from: str | None) -> None:
    """Train on the GPU, or on the CPU where there is none."""
    import torch

    from training.loop import TrainingLoop

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        print("There is no GPU that PyTorch can use: training on the CPU.")
    spec = dataset.spec
    print(
        f"{'Going on in' if saved else 'New run'} {run_dir}: {len(dataset):,} pictures of {spec.width}x{spec.height} px"
        f"{f', {spec.label_dim} classes' if spec.label_dim else ''}, {config.schedule.kimg:g} kimg"
    )
    loop = TrainingLoop(config, dataset, run_dir, device, saved["state"] if saved else None, init_from)
    loop.run()
    print(f"Done. Pictures and networks are in {run_dir}")


def configure(options: dict[str, Any], dataset: Any, path: str) -> RunConfig:
    """The preset with what the command line changes. Raises ConfigError."""
    config = preset(options["cfg"], dataset.spec, options["gpus"])
    changed = {
        "data": {"path": path, "cond": options["cond"], "mirror": options["mirror"], "subset": options["subset"],
                 "workers": options["workers"]},
        "generator": {"widths": options["g_dict"], "layers": options["num_layers"], "head_width": options["depth"],
                      "minimum_heads": options["minimum_head"], "linformer": options["linformer"]},
        "discriminator": {"architecture": options["darch"], "freeze_layers": options["freezed"]},
        "loss": {"r1_gamma": options["gamma"]},
        "augment": {"mode": options["aug"], "p": options["p"], "target": options["target"], "pipe": options["augpipe"]},
        "schedule": {"kimg": options["kimg"], "batch": options["batch"], "batch_gpu": options["batch_gpu"],
                     "seed": options["seed"], "tick_kimg": options["tick"], "snap_ticks": options["snap"],
                     "state_kimg": options["state_kimg"], "keep": options["keep"], "metrics": options["metrics"]},
    }  # fmt: skip
    for group, values in changed.items():
        given = {name: value for name, value in values.items() if value is not None}
        config = replace(config, **{group: replace(getattr(config, group), **given)})
    if options["resume"] not in (None, "latest"):  # fine-tuning starts close to its goal
        config = replace(
            config, augment=replace(config.augment, speed_kimg=100.0), ema=replace(config.ema, rampup=None)
        )
    for setting in options["settings"]:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write it as field=value, such as loss.r1_gamma=0.1")
        config = override(config, name.strip(), text.strip())
    if config.generator.linformer and config.augment.max_p > 0.7:
        config = replace(config, augment=replace(config.augment, max_p=0.7))
    return config


def describe(config: RunConfig, data: Path) -> str:
    """The name of the run folder after its number."""
    words = [data.stem, "cond" if config.data.cond else "", "mirror" if config.data.mirror else ""]
    words += [
        f"subset{config.data.subset}" if config.data.subset else "",
        config.preset,
        f"batch{config.schedule.batch}",
    ]
    return "-".join(word for word in words if word)


def continue_run(outdir: Path, config: RunConfig) -> tuple[Path | None, dict[str, Any] | None]:
    """The newest run folder with the same options and its saved state; (None, None) for a fresh start."""
    from training.checkpoint import find_state

    for run_dir in reversed(run_dirs(outdir)):
        options = run_dir / OPTIONS_FILE
        if options.exists() and matches(json.loads(options.read_text(encoding="utf-8")), config):
            saved = find_state(run_dir)
            if saved is not None:
                return run_dir, saved
    print(f"--resume=latest: no run with these options has a saved state in {outdir}: starting a new one.")
    return None, None


def matches(options: dict[str, Any], config: RunConfig) -> bool:
    """Whether a run's options equal this configuration where it matters for going on."""
    ours = config.to_dict()
    for values in (ours, options):
        values["data"].pop("workers", None)
        for name in FREE_TO_CHANGE:
            values["schedule"].pop(name, None)
    return ours == options


if __name__ == "__main__":
    sys.exit(main())
