"""One run in one process: the state, its data and phases, and what is due when; training/loop.py drives it."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnnlib.console import plain_warnings
from torch_utils import distributed
from torch_utils.stats import Scalar
from training.checkpoint.snapshot import load_networks
from training.checkpoint.state_file import restore
from training.config import RunConfig
from training.data.cache import cache_decoded
from training.data.stream import DataError, ImageDataset, stream
from training.evaluation.snapshots import average_folder, check_metrics, evaluate_snapshot, keep_best, missed_metrics
from training.latents import latent_source
from training.losses import build_phases
from training.phases import MicroBatch, Phase
from training.run.output import RunOutput
from training.run.preview import Preview
from training.run.reporter import Reporter
from training.run.stop import Diverged, Stop, Stopped, StopRequest
from training.run_report.renewal import RunReport, gather
from training.schedule import ramps
from training.state import TrainState

STATE_SEC = 300.0  # between two state files, unless --state-kimg says otherwise
CLOCK_BATCHES = 8  # batches between two looks at the clock and at the check for finite steps

RealBatch = list[tuple[Tensor, Tensor]]  # images, -1..1, and labels of each micro-batch


class TrainingRun:
    """A run: `loop.train` decides what happens next, this does it."""

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset,
        run_dir: Path,
        device: torch.device,
        saved: dict[str, Any] | None = None,  # what `find_state` returned, to resume from
        init_from: str | None = None,  # snapshot to start the networks from
        stop: StopRequest | None = None,  # asks to end early
        command: str = "",  # that resumes this run
    ) -> None:
        check_metrics(config.schedule.metrics, dataset)
        self.config, self.schedule = config, config.schedule
        self.dataset, self.run_dir, self.device = dataset, run_dir, device
        self.stop = stop or StopRequest()
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.micro_batch = self.schedule.micro_batch(self.world_size)
        self.total_nimg = round(self.schedule.kimg * 1000)
        self.state = TrainState(config, dataset.spec, device)
        if init_from is not None:
            load_networks(init_from, self.state)
        if saved is not None:
            restore(self.state, saved, run_dir)
        self.phases = build_phases(self.state)
        self.reporter = Reporter(run_dir, device, self.state.cur_nimg, self.total_nimg, is_quiet=self.rank != 0)
        self.log = self.reporter.log
        preview = Preview(dataset, self.state.G.z_dim, self.schedule.seed, device)
        content_hash = dataset.content_hash()  # known from the start, as images may vanish later
        self.output = RunOutput(run_dir, self.schedule, preview, content_hash, self.log, self.stop)
        facts = partial(gather, self.state, dataset, self.world_size, command)
        self.run_report = RunReport(run_dir, facts, self.log, is_on=self.rank == 0)
        cache_decoded(dataset, config.data.cache, device, self.log)
        self.state_sec = time.monotonic()  # when the last state file was due
        self.done_nimg = None if saved is None else self.state.cur_nimg  # what is due there was done before the restart
        self.snapshot_nimg: int | None = None  # of the last snapshot written
        self.saved_nimg = self.done_nimg  # of the last state on the disk
        self.skipped_metrics = Stop.NO  # why metrics were left to a resumed run
        self.start_streams()

    def start_streams(self) -> None:
        """Start the streams of real images and latents at the current number of images."""
        share = (self.schedule.batch, self.micro_batch, self.rank, self.world_size)
        self.latents = latent_source(self.state, self.dataset.labels(), *share)
        self.reals = stream(
            self.dataset,
            seed=self.state.seed,
            start_nimg=self.state.cur_nimg,
            batch_size=self.schedule.batch,
            micro_batch=self.micro_batch,
            rank=self.rank,
            world_size=self.world_size,
            num_workers=self.config.data.workers,
            device=self.device,
            on_broken=print if self.rank else self.log,
        )

    def restore(self, saved: dict[str, Any]) -> None:
        """Return to a saved state, without repeating what was due there."""
        restore(self.state, saved, self.run_dir)
        self.done_nimg = self.saved_nimg = self.state.cur_nimg
        self.reporter.rewind(self.state.cur_nimg)

    def next_batch(self) -> RealBatch:
        """The real images of this rank for the next step.

        Raises Stopped on every rank where one is asked to stop or cannot read its images.
        """
        failure: DataError | None = None
        reals: RealBatch = []
        try:
            for _ in range(self.schedule.batch // (self.micro_batch * self.world_size)):
                images, labels = next(self.reals)
                reals.append((images.float() / 127.5 - 1, labels))
        except DataError as error:
            failure = error
        reason = self.stop.agreed(has_failed=failure is not None and self.stop.reason is Stop.NO)
        if reason is not Stop.NO:
            raise Stopped(reason, failure)
        return reals

    def micro_batches(self, reals: RealBatch, phase: Phase) -> Iterator[MicroBatch]:
        """The micro-batches of a phase: real images, and latents drawn for this phase."""
        latents = self.latents.draw(self.state.cur_nimg, phase.stream, self.device)
        for (images, labels), drawn in zip(reals, latents, strict=True):
            yield MicroBatch(images, labels, drawn)

    def check_finite(self) -> None:
        """Raise Diverged after too many steps in a row that were not finite; at the end, after one.

        Looked at now and then, since it waits for the device.
        """
        is_time = self.state.batch_index % CLOCK_BATCHES == 0 or self.is_done
        if is_time and self.state.finite.consecutive_bad >= (1 if self.is_done else self.schedule.max_nonfinite):
            raise Diverged

    @property
    def is_done(self) -> bool:
        return self.state.cur_nimg >= self.total_nimg

    def is_due(self, event: str) -> bool:
        """Whether a tick, snapshot or state is due: at the start, at the end, and at fixed intervals of images.

        State files are due by images where --state-kimg is given, else with snapshots and by the clock.
        """
        if self.state.cur_nimg == self.done_nimg:
            return False
        tick_nimg = self.schedule.tick_kimg * 1000
        if event == "tick":
            return self._is_due_every(tick_nimg)
        if event == "snapshot":
            return self._is_due_every(tick_nimg * self.schedule.snap_ticks)
        if self.schedule.state_kimg is not None:
            return self._is_due_every(self.schedule.state_kimg * 1000)
        is_snapshot = self.is_due("snapshot")
        if is_snapshot or self.state.batch_index % CLOCK_BATCHES:
            return is_snapshot
        return bool(distributed.broadcast_object(time.monotonic() - self.state_sec) >= STATE_SEC)

    def _is_due_every(self, nimg: float) -> bool:
        seen = self.state.cur_nimg
        return seen == 0 or self.is_done or seen // nimg > (seen - self.schedule.batch) // nimg

    def report_status(self) -> None:
        """Log the status line and append a row to stats.jsonl."""
        values = {f"Schedule/{name}": self.state.now(ramp) for name, ramp in ramps(self.config).items()}
        stats = self.state.stats.collect() | {name: Scalar(1, value, 0.0) for name, value in values.items()}
        p = self.state.ada.p_clamped.item() if self.config.augment.mode != "noaug" else 0.0
        self.reporter.status(self.state.cur_nimg, p, stats, self.state.finite.total_bad)

    def save_snapshot(self) -> None:
        """Write the grid of generated images and the networks, if these are finite."""
        with self.reporter.maintenance():
            if self.output.save_snapshot(self.state, self.micro_batch):
                self.snapshot_nimg = self.state.cur_nimg

    def save_state(self) -> None:
        with self.reporter.maintenance():
            self.state_sec = time.monotonic()
            if self.output.save_state(self.state):
                self.saved_nimg = self.state.cur_nimg

    def measure(self) -> None:
        """Compute the metrics of the snapshot written just now, and renew the report."""
        with self.reporter.maintenance():
            if self.snapshot_nimg == self.state.cur_nimg > 0:
                for average in self.state.averages:
                    self._evaluate(self.schedule.metrics, average)
            if not self.is_done:  # at the end the report states how the run ended
                self.run_report.write()

    def measure_missed(self) -> None:
        """Compute the metrics of a snapshot as old as the state, where a stop came before them."""
        path, nimg = self.output.snapshot_path(self.state.cur_nimg), self.state.cur_nimg
        for average in self.state.averages:
            folder = average_folder(self.config.ema, average)
            with distributed.raise_on_all_ranks():
                missed = missed_metrics(self.schedule.metrics, path, nimg, folder) if self.rank == 0 else ()
            self._evaluate(distributed.broadcast_object(missed), average)

    def _evaluate(self, names: tuple[str, ...], average: str) -> None:
        """Compute metrics of an average in the snapshot at this number of images; an error is logged, training continues.

        The best snapshots are chosen by the first average.
        """
        if not names:
            return
        if (reason := self.stop.agreed()) is not Stop.NO:  # a resumed run computes what is missing
            self.skipped_metrics = reason
            return
        path = self.output.snapshot_path(self.state.cur_nimg)
        try:
            network, folder = self.state.averages[average], average_folder(self.config.ema, average)
            with plain_warnings(self.log):
                results = evaluate_snapshot(names, network, self.dataset, path, self.schedule.seed, folder)
            if average == "G_ema":
                for best in keep_best(results, path):
                    self.log(f"The best so far: {best.name}")
        except (ValueError, OSError, RuntimeError) as error:
            self.log(f"Warning: the metrics of {path.name} failed, training continues: {error}")
