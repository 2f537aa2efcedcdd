"""Train a Styleformer on a data set of images."""

import contextlib
import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnlib.command_line import memory_shortage
from dnnlib.dataclass_values import require
from dnnlib.rundir import tee_output
from dnnlib.text import parse_duration
from training.config import (
    ARCHITECTURES,
    AUGMENT_MODES,
    AUGMENT_PIPES,
    CACHE_MODES,
    COMPILE_CHOICES,
    PRECISIONS,
    DataConfig,
    RunConfig,
)
from training.options import check_options, configure
from training.presets import ALIASES, PRESETS

if TYPE_CHECKING:
    import torch

    from training.data.files import ImageFiles
    from training.data.stream import ImageDataset
    from training.plan.batch_size import MemoryProbe
    from training.run.stop import StopRequest


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
    if value is None or not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"'{value}' is neither a number from 1 on nor auto")
    return int(value)


def unless_serving(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A value that must be given, except where runs are shown only."""
    if value is None and context.params.get("serve") is None:
        raise click.MissingParameter(ctx=context, param=parameter)
    return value


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--outdir", required=True, metavar="DIR", help="Parent of the numbered run folders.")
@click.option(
    "--data",
    callback=unless_serving,
    metavar="PATH",
    help="Data set: zip or folder made by dataset_tool.py.  [required]",
)
@click.option("--cfg", default="auto", metavar="NAME", help=f"Preset: {', '.join([*PRESETS, *ALIASES])}.")
@click.option(
    "--gpus", type=click.IntRange(1), metavar="N", help="Processes, one per GPU; without GPUs on the CPU.  [default: 1]"
)
@click.option("--cond", type=bool, metavar="BOOL", help="Train on the labels of the data set.  [default: preset]")
@click.option("--mirror", type=bool, metavar="BOOL", help="Also use every image flipped.  [default: preset]")
@click.option("--subset", type=click.IntRange(1), metavar="N", help="Use only N images.  [default: all]")
@click.option("--kimg", type=float, metavar="KIMG", help="Thousands of images to train on.  [default: preset]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Images per optimizer step.  [default: preset]")
@click.option(
    "--batch-gpu",
    callback=images_per_pass,
    metavar="N|auto",
    help="Images per forward pass; auto = as many as fit into the GPU.  [default: batch / gpus]",
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
@click.option("--force", is_flag=True, help="--resume=latest goes on with the newest run although its options differ.")
@click.option(
    "--stop-after", callback=duration, metavar="TIME", help="Save the state and stop after so long, such as 2h50m."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Random seed.  [default: 0]")
@click.option(
    "--metrics",
    default="auto",
    metavar="LIST",
    help="Metrics at each snapshot; auto = FID where its weights are; none.",
)
@click.option("--snap", type=click.IntRange(1), metavar="TICKS", help="Ticks between two snapshots.  [default: preset]")
@click.option("--tick", type=float, metavar="KIMG", help="Thousands of images per tick.  [default: preset]")
@click.option(
    "--state-kimg", type=float, metavar="KIMG", help="Between two state files.  [default: snapshots and 5 minutes]"
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Newest snapshots to keep besides the best, 0 = all.")
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that read images.  [default: preset]")
@click.option(
    "--cache", type=click.Choice(CACHE_MODES), help="Where decoded images are kept; same images.  [default: auto]"
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    help="Numbers of the large products; auto = bf16 or fp16 as the GPU is new or old, fp32 on the CPU.",
)
@click.option(
    "--compile", type=click.Choice(COMPILE_CHOICES), default="auto", help="Compile the networks; auto = on GPUs."
)
@click.option("--nobench", type=bool, default=False, metavar="BOOL", help="Do not let cuDNN try out its algorithms.")
@click.option("--allow-tf32", type=bool, default=False, metavar="BOOL", help="Means --precision=tf32.")
@click.option(
    "--ops",
    type=click.Choice(["auto", "native", "reference"]),
    help="Operators on GPUs.  [default: $STYLEFORMER_OPS or auto]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any setting, e.g. --set loss.r1_gamma=0.1"
)
@click.option(
    "--serve",
    type=click.IntRange(0, 65535),
    is_eager=True,
    metavar="PORT",
    help="Train nothing, show the runs in --outdir at http://127.0.0.1:PORT (0 = any free port).",
)
@click.option("--dry-run", "-n", is_flag=True, help="Print the settings and what they cost, and stop.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Train a Styleformer on a data set of images.

    \b
    Examples:
      python train.py --outdir=~/training-runs --data=~/demo.zip --cfg=demo --cond=1
      python train.py --outdir=~/training-runs --data=~/cifar10.zip --cfg=cifar --gpus=2
      torchrun --nproc-per-node=2 train.py --outdir=~/training-runs --data=~/cifar10.zip --cfg=cifar
    Go on after a stop: type the same line with --resume=latest.
    Look at the runs in a browser: python train.py --outdir=~/training-runs --serve=8000
    """
    if options["serve"] is not None:
        show_runs(options)
        return
    try:
        launch(options)
    except (ValueError, OSError) as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        from torch_utils.distributed import PeerError, is_main

        if isinstance(error, PeerError | ChildProcessError) and not is_main():
            sys.exit(1)  # the first process, or the one concerned, says what it is
        raise click.ClickException(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        shortage = memory_shortage(error)
        if shortage is None or options["debug"]:
            raise
        is_tried = options["batch_gpu"] == "auto" or "GPU" not in shortage
        remedy = "a smaller --batch-gpu" if is_tried else "--batch-gpu=auto finds how many images per forward pass fit"
        raise click.ClickException(f"{shortage}: {remedy}") from error


def show_runs(options: dict[str, Any]) -> None:
    """Serve the reports of the runs in --outdir until Ctrl-C; needs no torch."""
    from training.run_report.server import serve

    try:
        serve(Path(options["outdir"]).expanduser(), options["serve"])
    except (ValueError, OSError) as error:
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error


@dataclass(frozen=True)
class Job:
    """What every process of a run is told."""

    config: RunConfig
    outdir: Path
    resume: str | None  # latest, a snapshot, or None = a new run
    force: bool
    stop_after_sec: float | None
    ops: str | None
    cudnn_benchmark: bool
    trial: "MemoryProbe | None"  # on the GPU, of --batch-gpu=auto; None = it is settled


def launch(options: dict[str, Any]) -> None:
    """Check everything, then train in as many processes as asked for."""
    from torch_utils import distributed
    from training.plan.batch_size import initial_batch_gpu

    check_options(options)
    torchrun = distributed.torchrun_world_size()
    gpus = options["gpus"] or torchrun or 1
    require(torchrun in (None, gpus), f"--gpus={gpus}, but torchrun started {torchrun} processes: leave --gpus out")
    distributed.check_gpus(distributed.local_world_size() if torchrun else gpus)
    path = str(Path(options["data"]).expanduser())
    outdir = Path(options["outdir"]).expanduser()
    is_auto, trial = options["batch_gpu"] == "auto", None
    settled = {**options, "batch_gpu": None} if is_auto else options
    files = open_files(path)
    config = configure(settled, path, open_data(files, DataConfig(path)).spec, gpus)
    dataset = open_data(files, config.data, config.schedule.seed)
    if is_auto:
        config, trial = initial_batch_gpu(config, dataset, gpus, outdir if options["resume"] == "latest" else None)
    check(config, dataset, gpus, options["resume"])
    if options["dry_run"]:
        dry_run(config, dataset, gpus, trial)
        return
    job = Job(
        config, outdir, options["resume"], options["force"], options["stop_after"], options["ops"],
        not options["nobench"], trial,
    )  # fmt: skip
    if gpus > 1 and torchrun is None:
        distributed.spawn(train_spawned, gpus, job, with_traceback=options["debug"])
    else:
        train(job, dataset)


def open_files(path: str) -> "ImageFiles":
    """The files of a data set, to be opened once per process; raises ValueError where they cannot be used."""
    from training.data.files import ImageFiles

    return ImageFiles(path)


def open_data(files: "ImageFiles", data: DataConfig, seed: int = 0) -> "ImageDataset":
    """The data set of a configuration; raises ValueError where it cannot be used."""
    from training.data.stream import ImageDataset

    return ImageDataset(files, data.cond, data.mirror, data.subset, seed=seed)


def check(config: RunConfig, dataset: "ImageDataset", gpus: int, resume: str | None) -> None:
    """Raise ValueError where settings, images, metrics and snapshot do not suit each other, before any long work."""
    from training.checkpoint.snapshot import check_fits
    from training.evaluation.snapshots import check_metrics

    config.check(dataset.spec, gpus)
    check_metrics(config.schedule.metrics, dataset)
    if resume not in (None, "latest"):
        check_fits(Path(resume), config, dataset.spec)


def dry_run(config: RunConfig, dataset: "ImageDataset", gpus: int, trial: "MemoryProbe | None") -> None:
    """Print the settings and what they cost."""
    from torch_utils.distributed import local_device
    from training.plan.batch_size import search_batch_gpu
    from training.plan.speed import speed
    from training.plan.summary import summary

    if trial:
        config = search_batch_gpu(config, dataset, trial, local_device())
    print(json.dumps(config.to_dict(), indent=2))
    print(summary(config, dataset.spec))
    print(speed(config, dataset, local_device(), gpus))
    print("This was a dry run: nothing was written.")


def train_spawned(job: Job) -> None:
    """Train in a process of its own, which has to open the data set for itself."""
    train(job, open_data(open_files(job.config.data.path), job.config.data, job.config.schedule.seed))


def train(job: Job, dataset: "ImageDataset") -> None:
    """Train in this process, on its GPU or on the CPU where there is none."""
    import torch

    from torch_utils import distributed
    from torch_utils.allocator import keep_freed_memory
    from torch_utils.ops import native
    from training.plan.batch_size import search_batch_gpu
    from training.precision import allow_tf32, resolve_precision
    from training.run.stop import StopRequest

    device = distributed.local_device()
    if device.type == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = job.cudnn_benchmark
    allow_tf32(resolve_precision(job.config.performance.precision, device).allow_tf32)
    if job.ops:
        native.set_mode(job.ops)
    if job.trial and distributed.is_main():  # before the other processes would take part in its steps
        native.prepare(device)
        job = replace(job, config=search_batch_gpu(job.config, dataset, job.trial, device))
    distributed.init(device)
    native.prepare(device)
    run_dir, is_resumed, config = choose_run(job, dataset)
    log = tee_output(run_dir / "log.txt") if distributed.rank() == 0 else contextlib.nullcontext()
    with log, distributed.explain_lost_peers(), StopRequest(job.stop_after_sec) as stop:
        run(replace(job, config=config), dataset, run_dir, is_resumed, device, stop)
    distributed.shutdown()


def choose_run(job: Job, dataset: "ImageDataset") -> tuple[Path, bool, RunConfig]:
    """The folder to train in, whether a run goes on there, and its settings; the same on every rank."""
    from torch_utils import distributed

    with distributed.raise_on_all_ranks():
        chosen = find_or_create_run(job, dataset) if distributed.rank() == 0 else None
    return distributed.broadcast_object(chosen)


def find_or_create_run(job: Job, dataset: "ImageDataset") -> tuple[Path, bool, RunConfig]:
    """What `choose_run` returns, for the first rank to find out."""
    from training.run.folder import new_run, newest_matching_run, write_options

    if job.resume == "latest":
        found = newest_matching_run(job.outdir, job.config, dataset.spec, dataset.content_hash(), job.force)
        if found is not None:
            write_options(*found)
            return found[0], True, found[1]
        require(
            not job.config.discriminator.freeze_layers,
            "--resume=latest found no run to go on with, and --freezed makes sense only for trained layers: give --resume=FILE",
        )
        print(f"--resume=latest: no run to go on with in {job.outdir}, starting a new one.")
    return new_run(job.outdir, job.config), False, job.config


def run(
    job: Job, dataset: "ImageDataset", run_dir: Path, is_resumed: bool, device: "torch.device", stop: "StopRequest"
) -> None:
    """Say what is about to happen, and train."""
    from torch_utils.distributed import print0, world_size
    from training.checkpoint.state_file import find_state
    from training.compilation import resolve_compile
    from training.precision import describe_precision
    from training.run.stop import Stop
    from training.run.training_run import TrainingRun
    from training.supervisor import supervise

    config = job.config
    if device.type == "cpu":
        print0("PyTorch sees no GPU: training on the CPU.")
    spec = dataset.spec
    print0(
        f"{'Going on in' if is_resumed else 'New run'} {run_dir}: {len(dataset):,} images of {spec.width}x{spec.height} px"
        f"{f', {spec.label_dim} classes' if spec.label_dim else ''}, {config.schedule.kimg:g} kimg, batch "
        f"{config.schedule.batch} in passes of {config.schedule.micro_batch(world_size())}"
    )
    group, micro_batch = config.discriminator.mbstd_group, config.schedule.micro_batch(world_size())
    if micro_batch < group:
        print0(
            f"Only {micro_batch} images are judged at once, fewer than the minibatch-std group of {group}: all of them are "
            f"one group."
        )
    print0(describe_precision(config.performance.precision, device))
    if why_not := resolve_compile(config.performance.compile, device)[1]:
        print0(why_not)
    init_from = None if job.resume == "latest" else job.resume
    saved = find_state(run_dir, print0) if is_resumed else None
    training_run = TrainingRun(config, dataset, run_dir, device, saved, init_from, stop, continuing_line())
    del saved  # as large as the networks and optimizers together
    reason = supervise(training_run)
    if reason is Stop.NO:
        print0(f"Done. Images and networks are in {run_dir}")
        return
    message = (
        f"Stopped at {training_run.state.cur_nimg / 1000:g} kimg: {reason.text}. To go on:\n    {continuing_line()}"
    )
    if reason is Stop.ORPHANED:  # not what anybody asked for
        raise ChildProcessError(message)
    print0(message)


def continuing_line() -> str:
    """The command that goes on with this run, as it was started."""
    from torch_utils.distributed import local_world_size, torchrun_world_size

    words = iter(sys.argv[1:])
    options = []
    for word in words:
        if word == "--resume":
            next(words, None)  # its value
        elif not word.startswith("--resume="):
            options.append(word)
    start = ["torchrun", f"--nproc-per-node={local_world_size()}"] if torchrun_world_size() else ["python"]
    return shlex.join([*start, *sys.argv[:1], *options, "--resume=latest"])


if __name__ == "__main__":
    sys.exit(main())
