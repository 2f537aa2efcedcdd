"""The training loop: status, pictures, snapshots and metrics when due, then one step; until enough pictures were seen."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_utils import distributed
from torch_utils.rng import seed_step
from training.checkpoint import load_networks, save_snapshot, save_state
from training.config import RunConfig
from training.dataset import ImageDataset, stream
from training.ema import ema_beta, update_ema
from training.evaluation import check_metrics, evaluate_snapshot
from training.latents import LatentSource
from training.phases import MicroBatch, build_phases
from training.preview import Preview
from training.report import Reporter
from training.state import TrainState

STATE_SEC = 300.0  # between two state files, unless --state-kimg says otherwise
CLOCK_BATCHES = 8  # batches between two looks at the clock, which the ranks share
STREAMS = {"G_main": 0, "G_pl": 1, "D_main": 2, "D_r1": 3}  # which latents a phase draws; adding one changes no other


class TrainingLoop:
    """One run in one process, from opening the data to the last snapshot."""

    def __init__(
        self,
        config: RunConfig,
        dataset: ImageDataset,
        run_dir: Path,
        device: torch.device,
        saved: dict[str, Any] | None = None,  # TrainState.state_dict() to go on from
        init_from: str | None = None,  # snapshot to start the networks from
    ) -> None:
        check_metrics(config.schedule.metrics, dataset)
        self.config, self.schedule = config, config.schedule
        self.dataset, self.run_dir, self.device = dataset, run_dir, device
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.micro_batch = self.schedule.micro_batch(self.world_size)
        self.total_nimg = round(self.schedule.kimg * 1000)
        self.state = TrainState(config, dataset.spec, device)
        if init_from is not None:
            load_networks(init_from, self.state)
        if saved is not None:
            self.state.load_state_dict(saved)
        self.phases = build_phases(self.state)
        self.latents = LatentSource(
            seed=self.schedule.seed,
            z_dim=self.state.G.z_dim,
            num_ws=self.state.G.num_ws,
            labels=torch.as_tensor(dataset.labels()),
            mixing_prob=config.loss.mixing_prob,
            batch_size=self.schedule.batch,
            micro_batch=self.micro_batch,
            rank=self.rank,
            world_size=self.world_size,
        )
        self.preview = Preview(dataset, self.state.G.z_dim, self.schedule.seed, device)
        self.report = Reporter(run_dir, device, self.state.cur_nimg, self.total_nimg, is_quiet=self.rank != 0)
        self.state_sec = time.monotonic()
        self.is_fresh = saved is None  # a resumed run has already shown what is due at this point

    def run(self) -> None:
        """Train until enough pictures were seen."""
        batches = self.real_batches()
        while True:
            if self.is_fresh:
                self.maintain()
            self.is_fresh = True
            if self.is_done:
                break
            self.step(next(batches))
            self.report.advance(self.schedule.batch)
        self.report.close()

    def step(self, reals: list[tuple[Tensor, Tensor]]) -> None:
        """One iteration: every phase that is due, then the averages; `reals` are images (uint8) and labels by micro-batch."""
        state, schedule = self.state, self.schedule
        seed_step(schedule.seed, state.cur_nimg, self.rank)
        images = [x.float() / 127.5 - 1 for x, _ in reals]
        labels = [c for _, c in reals]
        for phase in self.phases:
            if phase.is_due(state.batch_index):
                latents = self.latents.draw(state.cur_nimg, STREAMS[phase.name], self.device)
                phase.step([MicroBatch(*parts) for parts in zip(images, labels, latents, strict=True)])
        ema = self.config.ema
        update_ema(state.G_ema, state.G, ema_beta(schedule.batch, state.cur_nimg, ema.kimg * 1000, ema.rampup))
        state.cur_nimg += schedule.batch
        augment = self.config.augment
        if augment.mode == "ada" and state.batch_index % augment.interval == 0:
            state.strength.adjust(schedule.batch, augment.interval, augment.target, augment.speed_kimg * 1000)

    def maintain(self) -> None:
        """Show and save what is due at this number of pictures."""
        started_sec = time.monotonic()
        tick_nimg = self.schedule.tick_kimg * 1000
        is_tick = self.is_due(tick_nimg)
        if is_tick:
            stats = self.state.stats.collect()
            p = self.state.strength.effective_p.item() if self.config.augment.mode != "noaug" else 0.0
            self.report.status(self.state.cur_nimg, p, stats)
        is_snapshot = self.is_due(tick_nimg * self.schedule.snap_ticks)
        if is_snapshot:
            self.snapshot()
        if self.is_state_due(is_snapshot):
            save_state(self.run_dir, self.state)
            self.state_sec = time.monotonic()
        if is_snapshot and self.state.cur_nimg > 0:
            self.measure()
        self.report.upkeep_sec += time.monotonic() - started_sec

    def snapshot(self) -> None:
        """Write the grid of pictures and the networks."""
        nimg = self.state.cur_nimg
        if self.rank == 0:
            if nimg == 0:
                self.preview.save_reals(self.run_dir / "reals.png")
                self.preview.save_fakes(self.run_dir / "fakes_init.png", self.state.G_ema, self.micro_batch)
            self.preview.save_fakes(self.run_dir / f"fakes{nimg // 1000:06d}.png", self.state.G_ema, self.micro_batch)
            save_snapshot(self.snapshot_path, self.state)
            self.delete_old_snapshots()

    def measure(self) -> None:
        """Compute the metrics of the snapshot just written; what goes wrong there does not end the training."""
        if not self.schedule.metrics:
            return
        try:
            evaluate_snapshot(
                self.schedule.metrics, self.state.G_ema, self.dataset, self.snapshot_path, self.schedule.seed
            )
        except (ValueError, OSError, RuntimeError) as error:
            self.report.say(f"Warning: the metrics of {self.snapshot_path.name} failed, training goes on: {error}")

    @property
    def snapshot_path(self) -> Path:
        """The snapshot at this number of pictures."""
        return self.run_dir / f"network-snapshot-{self.state.cur_nimg // 1000:06d}.pkl"

    def delete_old_snapshots(self) -> None:
        """Keep the newest snapshots only, where --keep asks for that."""
        if self.schedule.keep:
            for path in sorted(self.run_dir.glob("network-snapshot-*.pkl"))[: -self.schedule.keep]:
                path.unlink()

    def real_batches(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """This rank's real pictures and labels of each step, as micro-batches; goes on where the state stands."""
        micro_batches = stream(
            self.dataset,
            seed=self.schedule.seed,
            start_nimg=self.state.cur_nimg,
            batch_size=self.schedule.batch,
            micro_batch=self.micro_batch,
            rank=self.rank,
            world_size=self.world_size,
            num_workers=self.config.data.workers,
            device=self.device,
        )
        count = self.schedule.batch // (self.micro_batch * self.world_size)
        while True:
            yield [next(micro_batches) for _ in range(count)]

    @property
    def is_done(self) -> bool:
        """Whether enough pictures were seen."""
        return self.state.cur_nimg >= self.total_nimg

    def is_due(self, every_nimg: float) -> bool:
        """Whether something that happens every so many pictures is due now; it always is at the start and the end."""
        nimg = self.state.cur_nimg
        return nimg == 0 or self.is_done or nimg // every_nimg > (nimg - self.schedule.batch) // every_nimg

    def is_state_due(self, is_snapshot: bool) -> bool:
        """Whether the state file is due: by pictures where --state-kimg is given, else at snapshots and by the clock."""
        if self.schedule.state_kimg is not None:
            return self.is_due(self.schedule.state_kimg * 1000)
        if is_snapshot or self.state.batch_index % CLOCK_BATCHES:
            return is_snapshot
        return distributed.share(time.monotonic() - self.state_sec) >= STATE_SEC
