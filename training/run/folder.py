"""Run folders: their names, and which one --resume=latest resumes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnnlib.dataclass_values import ConfigError, build, require, to_plain
from dnnlib.files import atomic_write
from dnnlib.names import normal_text, printable
from dnnlib.rundir import create_run_dir, run_dirs
from training.checkpoint.snapshot import weight_settings
from training.checkpoint.state_file import STATE_FILES, find_state
from training.config import DatasetSpec, RunConfig
from training.run.names import OPTIONS_FILE

FREE_TO_CHANGE = {  # settings that may change on resume
    "data": ("workers", "cache"),
    "schedule": (
        "kimg", "tick_kimg", "snap_ticks", "state_kimg", "keep", "metrics", "disk_retries", "disk_wait_sec", "max_nonfinite",
        "max_rollbacks",
    ),
    "performance": ("compile", "cuda_graphs", "recomputed_stages"),
}  # fmt: skip
KEPT = {  # a resumed run keeps its values: fine-tuning sets two, older runs have others
    "augment": ("speed_kimg",),
    "ema": ("rampup",),
    "generator": ("linformer_lr_mult",),
}
_MAX_STEM_BYTES = 80  # of a data set's name in that of a run folder; disks allow 255 for all of it


def new_run(outdir: Path, config: RunConfig) -> Path:
    """Create the next numbered folder, with the run's settings. Raises ValueError if it cannot be written."""
    try:
        run_dir = create_run_dir(outdir, describe(config))
    except OSError as error:
        raise ValueError(f"--outdir={outdir}: cannot write there ({error.strerror}); name another folder") from error
    write_options(run_dir, config)
    return run_dir


def write_options(run_dir: Path, config: RunConfig) -> None:
    with atomic_write(run_dir / OPTIONS_FILE, "w") as file:
        file.write(json.dumps(config.to_dict(), indent=2) + "\n")


def read_options(run_dir: Path) -> RunConfig | None:
    """The settings of a run with a saved state; None, with a warning, where they cannot be read. Raises CheckpointError."""
    try:
        return RunConfig.from_dict(json.loads((run_dir / OPTIONS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = f"Warning: {run_dir / OPTIONS_FILE} cannot be used: {error}"
    saved = find_state(run_dir)
    if saved is None:
        return None
    try:
        config = RunConfig.from_dict(saved["config"])
    except ConfigError as error:
        print(f"{problem}; {run_dir} is not resumed: {error}")
        return None
    print(f"{problem}; using the settings in its training state")
    return config


def describe(config: RunConfig) -> str:
    """The name of a run folder after its number, such as flowers-cond-mirror-auto-batch32."""
    data = config.data
    stem = printable(normal_text(Path(data.path).stem)).encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    words = [stem, "cond" if data.cond else "", "mirror" if data.mirror else ""]
    words += [f"subset{data.subset}" if data.subset else "", config.preset, f"batch{config.schedule.batch}"]
    return "-".join(word for word in words if word)


def newest_matching_run(
    outdir: Path, config: RunConfig, spec: DatasetSpec, content_hash: str = "", force: bool = False
) -> tuple[Path, RunConfig] | None:
    """The newest run folder with these settings and images and a saved state, and the settings to resume with.

    With `force`, the newest one whose networks fit, whatever its other settings. None where
    no run with a state exists. Raises ConfigError, which lists the differences, if there are only runs with others.
    """
    others, can_force = [], False
    for run_dir, theirs in saved_runs(outdir):
        saved = find_state(run_dir)
        assert saved is not None  # it would have raised an error
        different = differences(theirs, config) or image_differences(saved, spec, content_hash)
        their_spec = build(DatasetSpec, saved["dataset"], "dataset")
        fits = weight_settings(theirs, their_spec) == weight_settings(config, spec)
        fits = fits and theirs.discriminator.freeze_layers == config.discriminator.freeze_layers  # Adam's moments fit
        if not different or (force and fits):
            if different:
                print(f"--force: resuming {run_dir} although it differs in {'; '.join(different)}")
            return run_dir, continued(theirs, config)
        others.append(f"{run_dir.name} differs in {few(different)}")
        can_force = can_force or fits
    require(
        not others,
        f"--resume=latest: no run in {outdir} has these settings: {others[0] if others else ''}. Use the options of that run, "
        f"{'or resume the newest run whose networks fit (--force), ' if can_force else ''}or start a new run (without "
        f"--resume=latest{' --force' if force else ''}, or in another --outdir)",
    )
    return None


def with_batch_gpu_of_newest(outdir: Path, config: RunConfig) -> RunConfig | None:
    """These settings with the batch_gpu of the newest run that differs in nothing else; None without one."""
    for _, theirs in saved_runs(outdir):
        if theirs.schedule.batch == config.schedule.batch:
            ours = config.changed(schedule={"batch_gpu": theirs.schedule.batch_gpu})
            if not differences(theirs, ours):
                return ours
    return None


def saved_runs(outdir: Path) -> Iterator[tuple[Path, RunConfig]]:
    """The run folders with a state file and readable settings, the newest first, and these settings."""
    for run_dir in reversed(run_dirs(outdir)):
        if any((run_dir / name).exists() for name in STATE_FILES):
            config = read_options(run_dir)
            if config is not None:
                yield run_dir, config


def image_differences(saved: dict[str, Any], spec: DatasetSpec, content_hash: str) -> list[str]:
    """The differences between the images of a run, from its saved state, and these, as text."""
    theirs = to_plain(build(DatasetSpec, saved["dataset"], "dataset"))  # fields that older states lack: the defaults
    different = [
        f"{name} ({theirs[name]} there, {value} here)"
        for name, value in to_plain(spec).items()
        if theirs[name] != value
    ]
    if content_hash and saved.get("content_hash", content_hash) not in ("", content_hash) and not different:
        different.append("the content of the data set (other images, labels or names than when its state was saved)")
    return different


def differences(theirs: RunConfig, ours: RunConfig) -> list[str]:
    """The differences that prevent resuming, as text; the data set may move, but not change its name."""
    found, others = [], comparable(theirs)
    for group, values in comparable(ours).items():
        for name, value in values.items():
            other = others[group].get(name)  # another kind has other settings
            if other != value:
                found.append(f"{group}.{name} ({other} there, {value} here)")
    return found


def few(different: list[str]) -> str:
    """The first differences and the number of the others, for a message; another preset explains the rest."""
    shown = [text for text in different if text.startswith("preset.")] or different[:5]
    more = len(different) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def comparable(config: RunConfig) -> dict[str, dict[str, object]]:
    """The settings, by group, that must be equal for a run to be resumed."""
    values = config.to_dict()
    values["preset"] = {"name": values["preset"]}
    values["data"]["path"] = Path(values["data"]["path"]).name
    for free in (FREE_TO_CHANGE, KEPT):
        for group, names in free.items():
            for name in names:
                values[group].pop(name, None)  # not every kind has it
    return values


def continued(theirs: RunConfig, ours: RunConfig) -> RunConfig:
    """The new configuration with the settings that a resumed run keeps; prints those that would be others."""
    kept: dict[str, dict[str, Any]] = {}
    for group, names in KEPT.items():
        there, here = getattr(theirs, group), getattr(ours, group)
        for name in names:
            if getattr(there, name, None) != getattr(here, name, None):
                kept.setdefault(group, {})[name] = getattr(there, name)
                print(f"Kept from the start of the run: {group}.{name}={getattr(there, name)}")
    return ours.changed(**kept)
