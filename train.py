"""Train a Styleformer on a data set of images."""

import re
import sys
from typing import Any, ClassVar

import click

from dnnlib.command_line import SETTINGS, OneLineUsage, memory_shortage, one_line_errors
from dnnlib.console import protect_console
from dnnlib.paths import user_path
from dnnlib.text import parse_duration
from training.config import ARCHITECTURES, AUGMENT_MODES, AUGMENT_PIPES, CACHE_MODES, COMPILE_CHOICES, PRECISIONS
from training.presets import ALIASES, PRESETS


def int_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """A comma-separated list of whole numbers, such as 1024,512,512."""
    try:
        return None if value is None else tuple(int(word) for word in value.strip("[] ").split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not a list of whole numbers such as 1024,512,512") from None


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The seconds of a duration such as 2h50m."""
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def images_per_pass(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    """A number of images from 1 on, or auto."""
    if value in (None, "auto"):
        return value
    if value is None or not re.fullmatch("0*[1-9][0-9]{,17}", value):
        raise click.BadParameter(f"'{value}' is neither a number from 1 on nor auto")
    return int(value)


def latest_or_file(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """latest in any case, or the name of a file."""
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty; write --resume=latest to resume the newest run, or name a snapshot")
    return "latest" if value and value.strip().lower() == "latest" else value


def unless_serving(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A value that is required, except with --serve."""
    if value is None and context.params.get("serve") is None:
        raise click.MissingParameter(ctx=context, param=parameter)
    return value


class TrainCommand(OneLineUsage):
    other_names: ClassVar = {  # options of similar programs -> what to write here
        "--lr": "--set optimizer.g_lr=0.001 --set optimizer.d_lr=0.001",
        "--learning-rate": "--set optimizer.g_lr=0.001 --set optimizer.d_lr=0.001",
        "--epochs": "--kimg=1000, the thousands of images to train on",
        "--steps": "--kimg=1000, the thousands of images to train on",
        "--batch-size": "--batch=32",
        "--gpu": "--gpus=1",
        "--dataset": "--data=PATH",
        "--output": "--outdir=DIR",
        "--name": "--outdir=DIR",
        "--fp32": "--precision=fp32",
        "--glr": "--set optimizer.g_lr=0.002",
        "--dlr": "--set optimizer.d_lr=0.002",
        "--cbase": "--set discriminator.channel_base=16384",
        "--cmax": "--set discriminator.channel_max=512",
    }


@click.command(cls=TrainCommand, context_settings=SETTINGS)
@click.option("--outdir", required=True, metavar="DIR", help="Folder for the numbered run folders.")
@click.option(
    "--data",
    callback=unless_serving,
    metavar="PATH",
    help="Data set: zip or folder, as dataset_tool.py writes it.  [required]",
)
@click.option("--cfg", default="auto", metavar="NAME", help=f"Preset: {', '.join([*PRESETS, *ALIASES])}.")
@click.option(
    "--gpus",
    type=click.IntRange(1),
    metavar="N",
    help="Number of GPUs, one process per GPU; CPU processes if there is no GPU.  [default: 1]",
)
@click.option("--cond", type=bool, metavar="BOOL", help="Train a conditional model on the labels.  [default: preset]")
@click.option(
    "--mirror", type=bool, metavar="BOOL", help="Double the data set with horizontal flips.  [default: preset]"
)
@click.option("--subset", type=click.IntRange(1), metavar="N", help="Train on only N images.  [default: all]")
@click.option("--kimg", type=float, metavar="KIMG", help="Training length, thousands of images.  [default: preset]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Images per optimizer step.  [default: preset]")
@click.option(
    "--batch-gpu",
    callback=images_per_pass,
    metavar="N|auto",
    help="Images per forward pass on each GPU; auto = as many as fit in memory.  [default: batch / gpus]",
)
@click.option("--gamma", type=click.FloatRange(0), metavar="X", help="R1 weight.  [default: preset]")
@click.option("--aug", type=click.Choice(AUGMENT_MODES), help="Augmentation mode.  [default: preset]")
@click.option("--p", type=click.FloatRange(0, 1), metavar="X", help="Augmentation probability for --aug=fixed.")
@click.option("--target", type=click.FloatRange(0, 1), metavar="X", help="ADA target.  [default: 0.6]")
@click.option("--augpipe", type=click.Choice(AUGMENT_PIPES), help="Augmentation pipeline.  [default: preset]")
@click.option(
    "--g_dict", callback=int_list, metavar="LIST", help="Token width of each generator stage.  [default: preset]"
)
@click.option(
    "--num_layers", callback=int_list, metavar="LIST", help="Encoder layers of each stage.  [default: preset]"
)
@click.option("--depth", type=click.IntRange(1), metavar="N", help="Channels of an attention head.  [default: preset]")
@click.option(
    "--minimum_head", type=click.IntRange(1), metavar="N", help="Minimum number of attention heads.  [default: preset]"
)
@click.option(
    "--linformer",
    type=bool,
    metavar="BOOL",
    help="Use Linformer attention in stages of 32x32 px and larger.  [default: preset]",
)
@click.option("--darch", type=click.Choice(ARCHITECTURES), help="Discriminator architecture.  [default: preset]")
@click.option(
    "--freezed", type=click.IntRange(0), metavar="N", help="Freeze the first N discriminator layers.  [default: 0]"
)
@click.option(
    "--resume",
    callback=latest_or_file,
    metavar="latest|FILE",
    help="latest = resume the newest matching run; FILE = fine-tune from a snapshot.",
)
@click.option(
    "--force",
    is_flag=True,
    help="With --resume=latest: resume the newest run whose networks fit, even if other options differ.",
)
@click.option(
    "--stop-after", callback=duration, metavar="TIME", help="Save the state and stop after this time, such as 2h50m."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed.  [default: 0]")
@click.option(
    "--metrics",
    default="auto",
    metavar="LIST",
    help="Metrics per snapshot, comma-separated; auto = FID if its weights are installed; or none.",
)
@click.option("--snap", type=click.IntRange(1), metavar="TICKS", help="Ticks per snapshot.  [default: preset]")
@click.option("--tick", type=float, metavar="KIMG", help="Thousands of images per tick.  [default: preset]")
@click.option(
    "--state-kimg",
    type=float,
    metavar="KIMG",
    help="Thousands of images per state file.  [default: each snapshot and every 5 minutes]",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    metavar="N",
    help="Keep the N newest snapshots and the best; 0 = all.  [default: 0]",
)
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Data loader processes.  [default: preset]")
@click.option("--cache", type=click.Choice(CACHE_MODES), help="Where to cache decoded images.  [default: auto]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    help="Precision; auto = bf16 (fp16 before Ampere, fp32 on the CPU).",
)
@click.option(
    "--compile", type=click.Choice(COMPILE_CHOICES), default="auto", help="Use torch.compile; auto = on GPUs."
)
@click.option("--nobench", type=bool, default=False, metavar="BOOL", help="Disable cuDNN benchmarking.")
@click.option(
    "--allow-tf32",
    type=bool,
    default=False,
    metavar="BOOL",
    help="Same as --precision=tf32; the default, auto, is faster.",
)
@click.option(
    "--ops",
    type=click.Choice(["auto", "native", "reference"]),
    help="Custom CUDA operators.  [default: $STYLEFORMER_OPS or auto]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override any setting, such as loss.r1_gamma=0.1; --dry-run lists them.",
)
@click.option(
    "--serve",
    type=click.IntRange(0, 65535),
    is_eager=True,
    metavar="PORT",
    help="Show the runs in --outdir at http://127.0.0.1:PORT (0 = any free port); no training.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Print all settings, model size, speed and memory, and exit.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(**options: Any) -> None:
    """Train a Styleformer on a data set of images.

    \b
    Examples:
      python train.py --outdir=~/training-runs --data=~/demo.zip --cfg=demo --cond=1
      python train.py --outdir=~/training-runs --data=~/cifar10.zip --cfg=cifar --gpus=2
      torchrun --nproc-per-node=2 train.py --outdir=~/training-runs --data=~/cifar10.zip --cfg=cifar
    Resume: the same command with --resume=latest.
    Reports in the browser: python train.py --outdir=~/training-runs --serve=8000
    """
    if sys.platform == "win32":
        raise click.ClickException("train.py runs on Linux; on Windows use WSL (docs/wsl.md)")
    if options["serve"] is not None:  # needs no torch
        from training.run_report.server import serve

        with one_line_errors(options["debug"]):
            serve(user_path(options["outdir"]), options["serve"])
        return
    try:
        from training.launch import launch

        launch(options)
    except (ValueError, OSError) as error:  # messages of our checks name the remedy
        if options["debug"]:
            raise
        from torch_utils.distributed import PeerError, is_main

        if isinstance(error, PeerError | ChildProcessError) and not is_main():
            sys.exit(1)  # the first process, or the one that failed, prints it
        raise click.ClickException(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        shortage = memory_shortage(error)
        if shortage is None or options["debug"]:
            raise
        is_tried = options["batch_gpu"] == "auto" or "GPU" not in shortage
        remedy = "a smaller --batch-gpu" if is_tried else "--batch-gpu=auto finds how many images fit"
        remedy += ", with --force to resume with it" if options["resume"] == "latest" else ""
        remedy += "; --set performance.cuda_graphs=false also saves memory" if "GPU" in shortage else ""
        raise click.ClickException(f"{shortage}: {remedy}") from error


if __name__ == "__main__":
    protect_console()
    sys.exit(main())
