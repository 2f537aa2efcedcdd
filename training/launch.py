"""From the options of train.py to a run: everything is checked, then each process trains in the same folder."""

import contextlib
import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dnnlib.dataclass_values import ConfigError, require
from dnnlib.paths import require_outside, user_path
from dnnlib.rundir import run_dirs, tee_output
from dnnlib.urls import is_address, local_file
from metrics.cache import default_folder
from torch_utils import distributed
from torch_utils.allocator import keep_freed_memory
from torch_utils.distributed import print0
from torch_utils.ops import native
from torch_utils.ops.native.toolchain import OperatorsUnavailable
from training.checkpoint.snapshot import check_fits
from training.checkpoint.state_file import STATE_FILES, STATE_LATEST, find_state
from training.compilation import resolve_compile
from training.config import DataConfig, RunConfig
from training.data.dataset import ImageFiles
from training.data.stream import ImageDataset
from training.evaluation.snapshots import check_metrics
from training.options import check_options, configure
from training.plan.batch_size import agree_on_batch_gpu, initial_batch_gpu, search_batch_gpu
from training.plan.summary import meta_networks, speed, summary
from training.precision import describe_precision, resolve_precision, set_arithmetic
from training.run.folder import new_run, newest_matching_run, write_options
from training.run.lock import run_lock
from training.run.names import LOG_FILE, OPTIONS_FILE
from training.run.stop import Stop, StopRequest
from training.run.training_run import TrainingRun
from training.schedule import schedule_table
from training.state import trainable
from training.supervisor import supervise

# Environment variables with the number of processes, of srun, mpirun (Open MPI; MPICH) and accelerate.
STARTERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")


@dataclass(frozen=True)
class Job:
    """What every process of a run is started with."""

    config: RunConfig
    outdir: Path
    resume: str | None  # latest, a snapshot, or None = a new run
    force: bool
    stop_at_sec: float | None  # on the monotonic clock, which all processes of a machine share
    ops: str | None
    cudnn_benchmark: bool
    gpus: int  # processes
    is_searching: bool  # the batch of a forward pass is yet to be found on a GPU (--batch-gpu=auto)


def launch(options: dict[str, Any]) -> None:
    """Check everything, then train in as many processes as asked for."""
    started_sec = time.monotonic()
    check_options(options)
    torchrun = distributed.torchrun_world_size()
    if torchrun is None:
        require_one_process()
    gpus = options["gpus"] or torchrun or 1
    require(torchrun in (None, gpus), f"--gpus={gpus}, but torchrun started {torchrun} processes: leave --gpus out")
    distributed.check_gpus(distributed.local_world_size() if torchrun else gpus)
    path, outdir = str(user_path(options["data"])), user_path(options["outdir"])
    require_outside(outdir, "--outdir", path, "--data")
    resume, is_searching = options["resume"], False
    if resume not in (None, "latest"):
        if not is_address(resume):
            require_no_run(user_path(resume), resume)
        resume = str(local_file(resume, default_folder()))
    files = ImageFiles(path)
    config = configure(options, path, view(files, DataConfig(path, cond=bool(options["cond"]))).spec, gpus)
    dataset = view(files, config.data, config.schedule.seed)
    if options["batch_gpu"] == "auto":
        config, is_searching = initial_batch_gpu(
            config, dataset, gpus, outdir if resume == "latest" and not options["force"] else None
        )
    config.check(dataset.spec, gpus)
    if config.discriminator.freeze_layers:  # must leave some
        trainable(meta_networks(config, dataset.spec)[1], config.discriminator.freeze_layers)
    check_metrics(config.schedule.metrics, dataset)
    if resume not in (None, "latest"):
        check_fits(Path(resume), config, dataset.spec)
    distributed.warn_of_shared_cpu(gpus)
    job = Job(
        config=config,
        outdir=outdir,
        resume=resume,
        force=options["force"],
        stop_at_sec=None if options["stop_after"] is None else started_sec + options["stop_after"],
        ops=options["ops"],
        cudnn_benchmark=not options["nobench"],
        gpus=gpus,
        is_searching=is_searching,
    )
    if options["dry_run"]:
        dry_run(job, dataset)
    elif gpus > 1 and torchrun is None:
        distributed.spawn(train, gpus, job, with_traceback=options["debug"])
    else:
        train(job, dataset)


def require_one_process() -> None:
    """Raise ConfigError where another program than torchrun started several processes: each would train on its own."""
    for name in STARTERS:
        count = os.environ.get(name, "")
        require(
            not count.isdecimal() or int(count) <= 1,
            f"{name}={count} means that srun, mpirun or accelerate started {count} processes, and each would train a run of "
            f"its own on the first GPU. Start torchrun --nproc-per-node=GPUS train.py ... once per machine, or unset {name}",
        )


def require_no_run(path: Path, given: str) -> None:
    """Raise ConfigError, with the options that resume it, where --resume=FILE names a run folder or its state."""
    require(
        is_address(given) or path.exists(),
        f"--resume={given}: there is no such file. To resume the newest run in --outdir: --resume=latest",
    )
    is_state = path.name in STATE_FILES
    run_dir = path.parent if is_state else path
    if run_dirs(path) or is_state or (path / OPTIONS_FILE).exists():
        what = "a training state" if is_state else "a folder of runs" if run_dirs(path) else "a run folder"
        outdir = path if run_dirs(path) else run_dir.parent
        snapshots = sorted(run_dir.glob("network-snapshot-[0-9]*.pkl"))
        fine_tune = f"; to fine-tune in a new run: --resume={snapshots[-1]}" if snapshots else ""
        raise ConfigError(
            f"--resume={given} is {what}. To resume: --outdir={outdir} --resume=latest, with the options of that run "
            f"(run_facts.json has its command){fine_tune}"
        )


def view(files: ImageFiles, data: DataConfig, seed: int = 0) -> ImageDataset:
    """The data set of a configuration; raises ValueError where it cannot be used."""
    return ImageDataset(files, data.cond, data.mirror, data.subset, seed=seed)


def dry_run(job: Job, dataset: ImageDataset) -> None:
    config, device = job.config, distributed.local_device()
    torch.backends.cudnn.benchmark = job.cudnn_benchmark
    set_arithmetic(resolve_precision(config.performance.precision, device))
    native.prepare(device, job.ops)
    if job.is_searching:
        config = search_batch_gpu(config, dataset, job.gpus, device)
    print(json.dumps(config.to_dict(), indent=2))
    if table := schedule_table(config):
        print(table)
    print(summary(config, dataset.spec))
    print(speed(config, dataset, device, job.gpus))
    print("This was a dry run: nothing was written.")


def train(job: Job, dataset: ImageDataset | None = None) -> None:
    """Train in this process, on its GPU or on the CPU where there is none; None = open the data set first."""
    if dataset is None:
        dataset = view(ImageFiles(job.config.data.path), job.config.data, job.config.schedule.seed)
    device = distributed.local_device()
    if device.type == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = job.cudnn_benchmark
    set_arithmetic(resolve_precision(job.config.performance.precision, device))
    if job.is_searching:  # before the other processes would take part in its steps
        if distributed.is_first_on_machine():  # a build that fails would be repeated by the others: they do without
            raised_by_all = (OperatorsUnavailable,) if distributed.is_started() else ()  # below
            with contextlib.suppress(*raised_by_all):
                native.prepare(device, job.ops)
        job = replace(job, config=search_batch_gpu(job.config, dataset, job.gpus, device))
    join(dataset, device)
    job = replace(job, config=agree_on_batch_gpu(job.config))
    native.prepare(device, job.ops)
    with contextlib.ExitStack() as stack:
        run_dir, is_resumed, config = choose_run(job, dataset, stack)
        log = tee_output(run_dir / LOG_FILE) if distributed.rank() == 0 else contextlib.nullcontext()
        with log, distributed.explain_lost_peers(), StopRequest(job.stop_at_sec) as stop:
            run(replace(job, config=config), dataset, run_dir, is_resumed, device, stop)
    distributed.shutdown()


def join(dataset: ImageDataset, device: torch.device) -> None:
    """Join the other processes, if any; raises PeerError unless all have the same images."""
    # Each process reads all files of a folder for this, which may take minutes: before `init`, so that no collective waits.
    images = [dataset.content_hash()] if distributed.is_started() else []
    distributed.init(device)
    distributed.assert_equal_across_ranks("the images", images)


def choose_run(job: Job, dataset: ImageDataset, stack: contextlib.ExitStack) -> tuple[Path, bool, RunConfig]:
    """The folder to train in, locked until `stack` ends, whether it is resumed, and its settings; the same on every rank."""
    chosen: tuple[Path, bool, RunConfig] | None = None
    with distributed.raise_on_all_ranks():
        if distributed.rank() == 0:
            found = find_run(job, dataset) if job.resume == "latest" else None
            run_dir, config = found or (new_run(job.outdir, job.config), job.config)
            stack.enter_context(run_lock(run_dir))
            chosen = run_dir, found is not None, config
    return distributed.broadcast_object(chosen)  # type: ignore[no-any-return]


def find_run(job: Job, dataset: ImageDataset) -> tuple[Path, RunConfig] | None:
    """The run that --resume=latest means; None = there is none yet. Raises ValueError where none fits."""
    found = newest_matching_run(job.outdir, job.config, dataset.spec, dataset.content_hash(), job.force)
    if found is None:
        require(
            not job.config.discriminator.freeze_layers,
            "--resume=latest found no run to resume, and --freezed makes sense only for trained layers: give --resume=FILE",
        )
        print(f"--resume=latest: no run to resume in {job.outdir}, starting a new one from random weights.")
    return found


def run(
    job: Job, dataset: ImageDataset, run_dir: Path, is_resumed: bool, device: torch.device, stop: StopRequest
) -> None:
    print_header(job.config, dataset, run_dir, is_resumed, device)
    init_from = None if job.resume == "latest" else job.resume
    saved = find_state(run_dir, print0) if is_resumed else None
    training = TrainingRun(job.config, dataset, run_dir, device, saved, init_from, stop, resume_command())
    distributed.assert_equal_across_ranks("the saved state", [training.state.cur_nimg])  # all machines see one folder
    if is_resumed:  # the state fits these settings
        with distributed.raise_on_all_ranks():
            if distributed.is_main():
                write_options(run_dir, job.config)
    del saved  # as large as the networks and optimizers together
    if training.is_done:
        print0(
            f"Nothing to train: {training.state.cur_nimg / 1000:g} kimg were seen, and --kimg is {job.config.schedule.kimg:g}."
        )
    reason = supervise(training)
    if reason is Stop.NO:
        print0(f"Done. Images and networks are in {run_dir}")
        return
    message = f"Stopped at {training.state.cur_nimg / 1000:g} kimg: {reason.text}. {to_resume(training)}\n    {resume_command()}"
    if training.saved_nimg is not None:
        network = shlex.quote(str(run_dir / STATE_LATEST))
        message += (
            f"\nTo sample from the saved state:\n    python generate.py --network={network} --seeds=0-35 --outdir=out"
        )
    if reason is Stop.ORPHANED:  # not what anybody asked for
        raise ChildProcessError(message)
    print0(message)


def to_resume(training: TrainingRun) -> str:
    """What precedes the command that resumes a stopped run, with the state on the disk where that is an older one."""
    if training.saved_nimg == training.state.cur_nimg:
        return "To resume:"
    if training.saved_nimg is None:
        return "No state is saved. To start again:"
    return f"The last state is that of {training.saved_nimg / 1000:g} kimg. To resume from there:"


def print_header(
    config: RunConfig, dataset: ImageDataset, run_dir: Path, is_resumed: bool, device: torch.device
) -> None:
    """Print folder, images, length, batch and precision of a run."""
    if device.type == "cpu":
        print0("PyTorch sees no GPU: training on the CPU.")
    spec, micro_batch = dataset.spec, config.schedule.micro_batch(distributed.world_size())
    label_word = "label values" if spec.labels_are_vectors else "classes"
    print0(
        f"{'Resuming' if is_resumed else 'New run'} {run_dir}: {len(dataset):,} images of {spec.width}x{spec.height} px"
        f"{f', {spec.label_dim} {label_word}' if spec.label_dim else ''}, {config.schedule.kimg:g} kimg, batch "
        f"{config.schedule.batch}, {micro_batch} images per forward pass"
    )
    for note in dataset.notes():
        print0(note)
    group = config.discriminator.mbstd_group
    if micro_batch < group:
        print0(
            f"The minibatch-std group is {micro_batch} instead of {group}: all images of a forward pass are one group."
        )
    every_kimg = config.schedule.tick_kimg * config.schedule.snap_ticks
    if every_kimg < 1:
        print0(
            f"Snapshots are due every {every_kimg:g} kimg but named by whole kimg: a later one replaces an earlier one of the "
            "same name."
        )
    print0(describe_precision(config.performance.precision, device))
    if why_not := resolve_compile(config.performance.compile, device)[1]:
        print0(why_not)


def resume_command() -> str:
    """The command that resumes this run, as it was started."""
    words = iter(sys.argv[1:])
    options = []
    for word in words:
        if word == "--resume":
            next(words, None)  # its value
        elif not word.startswith("--resume=") and word != "--force":
            options.append(word)
    torchrun = distributed.torchrun_world_size()
    start = ["torchrun", f"--nproc-per-node={distributed.local_world_size()}"] if torchrun else ["python"]
    return shlex.join([*start, *sys.argv[:1], *options, "--resume=latest"])
