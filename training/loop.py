"""The training loop: status, images, snapshots and metrics when due, then one step; until enough images were seen."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_utils import distributed
from torch_utils.rng import seed_step
from training.checkpoint.snapshot import load_networks, save_snapshot
from training.checkpoint.state_file import STATE_LATEST, find_state, restore, state_values, write_state
from training.config import RunConfig
from training.data.cache import cache_decoded
from training.data.stream import DataError, ImageDataset, stream
from training.ema import ema_beta, update_ema
from training.evaluation.snapshots import check_metrics, evaluate_snapshot, missed_metrics
from training.latents import LatentSource
from training.phases import MicroBatch, build_phases
from training.run.best import keep_best
from training.run.disk_full import DiskFullRetry
from training.run.preview import Preview
from training.run.reporter import Reporter
from training.run.stop import Stop, StopRequest
from training.run_report.facts import gather
from training.run_report.renewal import RunReport
from training.state import TrainState

STATE_SEC = 300.0  # between two state files, unless --state-kimg says otherwise
CLOCK_BATCHES = 8  # batches between two looks at the clock, which the ranks share
STREAMS = {"G_main": 0, "G_pl": 1, "D_main": 2, "D_r1": 3}  # which latents a phase draws; adding one changes no other


class DivergedError(ValueError):
    """The run diverged again and again; the message says what to try."""


class TrainingLoop:
    """One run in one process, from opening the data to the last snapshot."""

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset,
        run_dir: Path,
        device: torch.device,
        saved: dict[str, Any] | None = None,  # what `find_state` returned, to go on from
        init_from: str | None = None,  # snapshot to start the networks from
        stop: StopRequest | None = None,  # asks to end early
        command: str = "",  # the one that goes on with this run, for people
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
        with distributed.raise_on_all_ranks():  # known from the start: the images may be gone when it is written
            own_hash = dataset.content_hash() if self.rank == 0 else ""
        self.content_hash = distributed.broadcast_object(own_hash)
        self.phases = build_phases(self.state)
        self.latents = self.latent_source()
        self.preview = Preview(dataset, self.state.G.z_dim, self.schedule.seed, device)
        self.report = Reporter(run_dir, device, self.state.cur_nimg, self.total_nimg, is_quiet=self.rank != 0)
        facts = partial(gather, self.state, dataset, self.world_size, command)
        self.run_report = RunReport(run_dir, facts, self.report.say, is_on=self.rank == 0)
        self.patience = DiskFullRetry(
            self.schedule.disk_retries, self.schedule.disk_wait_sec, self.report.say, lambda: self.stop.reason > Stop.NO
        )
        cache_decoded(dataset, config.data.cache, device, self.report.say)
        self.state_sec = time.monotonic()
        self.is_fresh = saved is None  # a resumed run has already shown what is due at this point

    def latent_source(self) -> LatentSource:
        """What the generated images of each step come from."""
        return LatentSource(
            seed=self.state.seed,
            z_dim=self.state.G.z_dim,
            num_ws=self.state.G.num_ws,
            labels=torch.as_tensor(self.dataset.labels()),
            mixing_prob=self.config.loss.mixing_prob,
            batch_size=self.schedule.batch,
            micro_batch=self.micro_batch,
            rank=self.rank,
            world_size=self.world_size,
        )

    def run(self) -> Stop:
        """Train until enough images were seen, or until asked to stop; returns why it stopped early, if it did."""
        self.run_report.write()  # it may say how an earlier session ended
        try:
            reason = self.train()
        except Exception as error:
            self.run_report.write("failed", str(error))
            raise
        self.run_report.write(*("done", "") if reason is Stop.NO else ("stopped", reason.text))
        return reason

    def train(self) -> Stop:
        """What `run` does, without a word on how it ended in the report."""
        if not self.is_fresh:
            self.measure_missed()
        batches = self.real_batches()
        while True:
            if self.is_diverged():
                self.roll_back()
                batches = self.real_batches()
            if self.is_fresh:
                self.maintain()
            self.is_fresh = True
            if self.is_done:
                break
            reals, failure = next_or_failure(batches)
            reason = self.stop.agreed(has_failed=failure is not None and self.stop.reason is Stop.NO)
            if reason is not Stop.NO:
                self.save()
                self.report.close()
                with distributed.raise_on_all_ranks():
                    if reason is Stop.FAILED and failure is not None:
                        raise failure
                return reason
            self.step(reals)
            self.report.advance(self.schedule.batch)
        self.report.close()
        return Stop.NO

    def step(self, reals: list[tuple[Tensor, Tensor]]) -> None:
        """One iteration: every phase that is due, then the averages; `reals` are images (uint8) and labels by micro-batch."""
        state, schedule = self.state, self.schedule
        seed_step(state.seed, state.cur_nimg, self.rank)
        images = [x.float() / 127.5 - 1 for x, _ in reals]
        labels = [c for _, c in reals]
        for phase in self.phases:
            if phase.is_due(state.batch_index):
                latents = self.latents.draw(state.cur_nimg, STREAMS[phase.name], self.device)
                phase.step([MicroBatch(*parts) for parts in zip(images, labels, latents, strict=True)])
        ema = self.config.ema
        update_ema(state.G_ema, state.G, ema_beta(schedule.batch, state.cur_nimg, ema.kimg * 1000, ema.rampup))
        state.cur_nimg += schedule.batch
        state.health.end_step()
        augment = self.config.augment
        if augment.mode == "ada" and state.batch_index % augment.interval == 0:
            state.ada.adjust(schedule.batch, augment.interval, augment.target, augment.speed_kimg * 1000)

    def maintain(self) -> None:
        """Show and save what is due at this number of images."""
        started_sec = time.monotonic()
        tick_nimg = self.schedule.tick_kimg * 1000
        is_tick = self.is_due(tick_nimg)
        if is_tick:
            stats = self.state.stats.collect()
            p = self.state.ada.p_clamped.item() if self.config.augment.mode != "noaug" else 0.0
            self.report.status(self.state.cur_nimg, p, stats, self.state.health.total)
        is_snapshot = self.is_due(tick_nimg * self.schedule.snap_ticks)
        is_good = True
        if is_snapshot:
            if self.world_size > 1:
                distributed.assert_equal_across_ranks("the weights", self.state.checksums())
            is_good = self.snapshot()
        if self.is_state_due(is_snapshot):
            self.save()
        if is_snapshot and is_good and self.state.cur_nimg > 0:
            self.measure(self.schedule.metrics)
        if is_snapshot and not self.is_done:  # at the end the report says how the run ended
            self.run_report.write()
        self.report.maintenance_sec += time.monotonic() - started_sec

    def snapshot(self) -> bool:
        """Write the grid of images and the networks; False where the networks are not worth it."""
        nimg = self.state.cur_nimg
        if not self.state.is_good():
            self.report.say(
                f"Warning: no snapshot at {nimg / 1000:g} kimg: losses, gradients or weights are not finite."
            )
            return False
        with distributed.raise_on_all_ranks():
            if self.rank == 0:
                if nimg == 0:
                    self.write(self.run_dir / "reals.png", self.preview.save_reals)
                    self.write(self.run_dir / "fakes_init.png", self.save_fakes)
                self.write(self.run_dir / f"fakes{nimg // 1000:06d}.png", self.save_fakes)
                self.write(self.snapshot_path, lambda path: save_snapshot(path, self.state))
                self.delete_old_snapshots()
        return True

    def save_fakes(self, path: Path) -> None:
        """Write the grid of generated images."""
        self.preview.save_fakes(path, self.state.G_ema, self.micro_batch)

    def save(self) -> None:
        """Write the training state, unless it is one that nobody wants to go on from."""
        self.state_sec = time.monotonic()
        if not self.state.is_good():
            kimg = self.state.cur_nimg / 1000
            self.report.say(
                f"Warning: the state at {kimg:g} kimg is not saved: it is not finite. The last good one stays."
            )
            return
        values = state_values(self.state, self.content_hash)
        with distributed.raise_on_all_ranks():
            if self.rank == 0:
                self.write(self.run_dir / STATE_LATEST, lambda path: write_state(self.run_dir, values))

    def write(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a file, with patience where the disk is full."""
        self.patience.write(lambda: write(path), path)

    def is_diverged(self) -> bool:
        """Whether too many steps in a row were not finite; looked at now and then, since it waits for the device."""
        is_time = self.state.batch_index % CLOCK_BATCHES == 0 or self.is_done
        return is_time and self.state.health.streak >= (1 if self.is_done else self.schedule.max_nonfinite)

    def roll_back(self) -> None:
        """Go back to the last good state, with another order of the images and other random numbers from there on."""
        num_rollbacks, kimg = self.state.num_rollbacks + 1, self.state.cur_nimg / 1000
        if num_rollbacks > self.schedule.max_rollbacks:
            raise DivergedError(
                f"the run diverged at {kimg:g} kimg, after {num_rollbacks - 1} new starts from a good state: its losses or "
                f"gradients are not finite for {self.state.health.streak} steps. The last good state and all snapshots are "
                f"kept. Try a larger --gamma, a smaller learning rate (--set optimizer.g_lr=0.001 --set optimizer.d_lr=0.001), "
                f"or --precision=fp32, with --resume=latest --force"
            )
        saved = find_state(self.run_dir, self.report.say)
        if saved is None:
            raise DivergedError(f"the run diverged at {kimg:g} kimg, and there is no saved state to go back to")
        restore(self.state, saved, self.run_dir)
        self.state.num_rollbacks = num_rollbacks
        self.latents = self.latent_source()
        self.is_fresh = False
        self.report.rewind(self.state.cur_nimg)
        self.report.say(
            f"Warning: the run diverged at {kimg:g} kimg (losses or gradients are not finite). Going back to "
            f"{self.state.cur_nimg / 1000:g} kimg with another order of the images, {num_rollbacks} of at most "
            f"{self.schedule.max_rollbacks} times."
        )

    def measure_missed(self) -> None:
        """Compute what a stop kept from being computed: the metrics of a snapshot as old as the state resumed from."""
        with distributed.raise_on_all_ranks():
            missed = (
                missed_metrics(self.schedule.metrics, self.snapshot_path, self.state.cur_nimg) if self.rank == 0 else ()
            )
        self.measure(distributed.broadcast_object(missed))

    def measure(self, names: tuple[str, ...]) -> None:
        """Compute metrics of the snapshot of this moment; what goes wrong there does not end the training."""
        if not names:
            return
        try:
            results = evaluate_snapshot(names, self.state.G_ema, self.dataset, self.snapshot_path, self.schedule.seed)
            for path in keep_best(results, self.snapshot_path):
                self.report.say(f"The best so far: {path.name}")
        except (ValueError, OSError, RuntimeError) as error:
            self.report.say(f"Warning: the metrics of {self.snapshot_path.name} failed, training goes on: {error}")

    @property
    def snapshot_path(self) -> Path:
        """The snapshot at this number of images."""
        return self.run_dir / f"network-snapshot-{self.state.cur_nimg // 1000:06d}.pkl"

    def delete_old_snapshots(self) -> None:
        """Keep the newest snapshots and the best ones only, where --keep asks for that."""
        if self.schedule.keep:
            for path in sorted(self.run_dir.glob("network-snapshot-[0-9]*.pkl"))[: -self.schedule.keep]:
                path.unlink()

    def real_batches(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """This rank's real images and labels of each step, as micro-batches; goes on where the state stands."""
        micro_batches = stream(
            self.dataset,
            seed=self.state.seed,
            start_nimg=self.state.cur_nimg,
            batch_size=self.schedule.batch,
            micro_batch=self.micro_batch,
            rank=self.rank,
            world_size=self.world_size,
            num_workers=self.config.data.workers,
            device=self.device,
            on_broken=print if self.rank else self.report.say,
        )
        count = self.schedule.batch // (self.micro_batch * self.world_size)
        while True:
            yield [next(micro_batches) for _ in range(count)]

    @property
    def is_done(self) -> bool:
        """Whether enough images were seen."""
        return self.state.cur_nimg >= self.total_nimg

    def is_due(self, every_nimg: float) -> bool:
        """Whether something that happens every so many images is due now; it always is at the start and the end."""
        nimg = self.state.cur_nimg
        return nimg == 0 or self.is_done or nimg // every_nimg > (nimg - self.schedule.batch) // every_nimg

    def is_state_due(self, is_snapshot: bool) -> bool:
        """Whether the state file is due: by images where --state-kimg is given, else at snapshots and by the clock."""
        if self.schedule.state_kimg is not None:
            return self.is_due(self.schedule.state_kimg * 1000)
        if is_snapshot or self.state.batch_index % CLOCK_BATCHES:
            return is_snapshot
        return distributed.broadcast_object(time.monotonic() - self.state_sec) >= STATE_SEC


def next_or_failure(
    batches: Iterator[list[tuple[Tensor, Tensor]]],
) -> tuple[list[tuple[Tensor, Tensor]], DataError | None]:
    """The next batch, or why there is none: an error that the other processes must hear of before it is raised."""
    try:
        return next(batches), None
    except DataError as error:
        return [], error
