"""Run folders: what they are called, and which one a resumed run goes on in."""

import json
from pathlib import Path
from typing import Any

from dnnlib.rundir import create_run_dir, run_dirs
from training.checkpoint import find_state
from training.config import RunConfig

OPTIONS_FILE = "training_options.json"
FREE_TO_CHANGE = {  # settings that a run may go on with although they differ
    "data": ("path", "workers"),
    "schedule": ("kimg", "tick_kimg", "snap_ticks", "state_kimg", "keep", "metrics"),
}


def new_run(outdir: Path, config: RunConfig) -> Path:
    """Create the next numbered folder with the run's settings in it; raises ValueError where that is impossible."""
    try:
        run_dir = create_run_dir(outdir, describe(config))
    except OSError as error:
        raise ValueError(f"--outdir={outdir}: cannot write there ({error.strerror}); name another folder") from error
    write_options(run_dir, config)
    return run_dir


def write_options(run_dir: Path, config: RunConfig) -> None:
    """Write training_options.json."""
    (run_dir / OPTIONS_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def describe(config: RunConfig) -> str:
    """The name of a run folder after its number, such as flowers-cond-mirror-auto-batch32."""
    data = config.data
    words = [Path(data.path).stem, "cond" if data.cond else "", "mirror" if data.mirror else ""]
    words += [f"subset{data.subset}" if data.subset else "", config.preset, f"batch{config.schedule.batch}"]
    return "-".join(word for word in words if word)


def newest_matching_run(outdir: Path, config: RunConfig) -> Path | None:
    """The newest run folder with these settings and a readable saved state."""
    for run_dir in reversed(run_dirs(outdir)):
        options = run_dir / OPTIONS_FILE
        is_ours = options.exists() and matches(json.loads(options.read_text(encoding="utf-8")), config)
        if is_ours and find_state(run_dir) is not None:
            return run_dir
    return None


def matches(options: dict[str, Any], config: RunConfig) -> bool:
    """Whether a run's settings equal this configuration where it matters for going on."""
    ours = config.to_dict()
    for values in (ours, options):
        for group, names in FREE_TO_CHANGE.items():
            for name in names:
                values[group].pop(name, None)
    return ours == options
