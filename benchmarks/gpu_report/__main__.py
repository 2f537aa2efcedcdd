"""`python -m benchmarks.gpu_report`: the first hour on a GPU as one command of at most ten minutes."""

import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import click

from benchmarks.gpu_report import facts
from benchmarks.gpu_report.budget import Budget
from benchmarks.gpu_report.child import GRACE_SEC
from benchmarks.gpu_report.page import summary
from benchmarks.gpu_report.parts import Part, Parts, Settings
from benchmarks.gpu_report.report import FILES, Report
from dnnlib.archive.image_tree import ImageTree
from dnnlib.dataclass_values import require
from dnnlib.paths import user_path

PROGRAM = ["python", "-m", "benchmarks.gpu_report"]
AMPERE = (8, 0)  # the first GPUs that multiply bf16
DIGITS_PX = 32


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--outdir", default="gpu-report", metavar="DIR", help="Where the report goes; an older one is replaced.")
@click.option("--data", metavar="PATH", help="Data set to train on, made by dataset_tool.py.  [default: the digits]")
@click.option("--cfg", metavar="NAME", help="Preset to train with.  [default: cifar for 32x32 px, else auto]")
@click.option("--minutes", type=click.FloatRange(1), default=10.0, help="Ends by itself within this time.")
@click.option("--parts", "chosen", metavar="LIST", help="Only these, such as steps:32,training.  [default: all]")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="The first GPU, or the CPU.")
@click.option("--quick", "is_quick", is_flag=True, help="A few steps of the demo preset: does everything run?")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Of all parts.")
def main(
    outdir: str,
    data: str | None,
    cfg: str | None,
    minutes: float,
    chosen: str | None,
    device: str,
    is_quick: bool,
    seed: int,
) -> None:
    """Find out what this program does on this GPU: checks, tests, modes side by side, kernels, real training.

    Every part runs in a separate process with a time of its own; after each the report is written anew.
    """
    budget = Budget(minutes, GRACE_SEC)
    signal.signal(signal.SIGTERM, end)
    try:
        torch_facts = facts.ask_torch(device)
        is_ampere = any(gpu.capability >= AMPERE for gpu in torch_facts.gpus[:1])
        path = user_path(data).resolve() if data else None
        suitable = suitable_preset(path)  # also finds out whether there are images at all
        settings = Settings(
            outdir=user_path(outdir).resolve(),
            data=path,
            cfg=cfg or ("demo" if is_quick else suitable),
            device=device,
            half="bf16" if is_ampere or device == "cpu" else "fp16",
            is_quick=is_quick,
            seed=seed,
        )
        with tempfile.TemporaryDirectory(prefix="styleformer-report-", ignore_cleanup_errors=True) as work:
            parts = select(Parts(settings, Path(work)).all(), chosen)
            found = facts.gather(device, torch_facts, shlex.join([*PROGRAM, *sys.argv[1:]]))
            prepare_folder(settings.outdir)
            report = Report(settings.outdir, found, budget, parts, Path(work), environment(device, Path(work)))
            try:
                report.run()
            finally:
                click.echo("\n" + "\n".join(summary(report.plain())))
                click.echo(f"The report is in {settings.outdir}")
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def select(parts: list[Part], chosen: str | None) -> list[Part]:
    """Return the parts of --parts, and what they are made of; raises ValueError for a name that is not one."""
    if chosen is None:
        return parts
    names = [word.strip() for word in chosen.split(",") if word.strip()]
    known = [part.name for part in parts]
    for name in names:
        require(name in known, f"--parts={name} is not known; choose from {', '.join(known)}")
    needed = {"digits", *(["training"] if "proxies" in names else [])}
    return [part for part in parts if part.name in names or part.name in needed]


def suitable_preset(data: Path | None) -> str:
    """Return the preset for the size of these images, which their first one shows; raises ValueError."""
    if data is None:
        return "cifar"
    tree = ImageTree(data)
    layout = tree.layout(tree.image_names()[0])
    return "cifar" if (layout.width, layout.height) == (DIGITS_PX, DIGITS_PX) else "auto"


def environment(device: str, work: Path) -> dict[str, str]:
    """Return the environment of all parts: compiled code is kept from one to the next, but not from an earlier report."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
    return variables if device == "cuda" else {**variables, "CUDA_VISIBLE_DEVICES": ""}


def prepare_folder(folder: Path) -> None:
    """Make the folder, and remove the files of an older report."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def end(number: int, frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C: the part that runs is ended, and the report written."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
