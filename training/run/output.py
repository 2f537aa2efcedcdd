"""What a run writes into its folder: grids, snapshots, the training state; with a wait where the disk is full."""

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from dnnlib.text import format_bytes, format_duration
from torch_utils import distributed
from training.checkpoint.snapshot import save_snapshot
from training.checkpoint.state_file import STATE_LATEST, state_values, write_state
from training.config import ScheduleConfig
from training.run.preview import Preview
from training.run.stop import Stop, StopRequest
from training.state import TrainState

MAX_WAIT_SEC = distributed.TIMEOUT.total_seconds() / 3  # for a file of several processes; two are written in a row


class RunOutput:
    """The files of a run. Its first rank writes; every rank calls, and an error of one is raised on all."""

    def __init__(
        self,
        run_dir: Path,
        schedule: ScheduleConfig,
        preview: Preview,
        content_hash: str,  # of the data set
        log: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self.run_dir, self.preview, self.content_hash = run_dir, preview, content_hash
        self.log, self.stop = log, stop
        self.keep, self.retries, self.wait_sec = schedule.keep, schedule.disk_retries, schedule.disk_wait_sec
        if distributed.world_size() > 1:  # the others wait in a collective while the first one writes
            self.retries = min(self.retries, int(MAX_WAIT_SEC / max(self.wait_sec, 1)))

    def snapshot_path(self, nimg: int) -> Path:
        """The snapshot at a number of images."""
        return self.run_dir / f"network-snapshot-{nimg // 1000:06d}.pkl"

    def save_snapshot(self, state: TrainState, micro_batch: int) -> bool:
        """Write the grid of generated images and the networks; False where the networks are not finite."""
        nimg = state.cur_nimg
        if distributed.world_size() > 1:
            distributed.assert_equal_across_ranks("the weights", state.checksums())
        if not distributed.all_ranks_have(state.all_finite()):
            self.log(f"Warning: no snapshot at {nimg / 1000:g} kimg: losses, gradients or weights are not finite.")
            return False

        def save_fakes(path: Path) -> None:
            self.preview.save_fakes(path, state.G_ema, micro_batch)

        with distributed.raise_on_all_ranks():
            if distributed.is_main():
                if nimg == 0:
                    self.write(nimg, "reals.png", self.preview.save_reals)
                    self.write(nimg, "fakes_init.png", save_fakes)
                self.write(nimg, f"fakes{nimg // 1000:06d}.png", save_fakes)
                name = self.snapshot_path(nimg).name
                self.write(nimg, name, lambda path: save_snapshot(path, state, self.content_hash))
                self.delete_old_snapshots()
        return True

    def save_state(self, state: TrainState) -> bool:
        """Write all that a restart needs; False where it is not finite, which leaves the last good one in place."""
        if not distributed.all_ranks_have(state.all_finite()):
            kimg = state.cur_nimg / 1000
            self.log(f"Warning: the state at {kimg:g} kimg is not saved: it is not finite. The last good one stays.")
            return False
        values = state_values(state, self.content_hash)
        with distributed.raise_on_all_ranks():
            if distributed.is_main():
                self.write(state.cur_nimg, STATE_LATEST, lambda path: write_state(path.parent, values))
        return True

    def write(self, nimg: int, name: str, write: Callable[[Path], None]) -> None:
        """Write a file of the run folder; warns, waits and tries again while the disk is full.

        At image 0 of several processes it does not wait: nothing would be lost, and the others would not wait for all files.
        Raises OSError after the last attempt, or when asked to stop while waiting.
        """
        path, retries = self.run_dir / name, self.retries if nimg > 0 or distributed.world_size() == 1 else 0
        for left in range(retries, -1, -1):
            try:
                return write(path)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                free = format_bytes(shutil.disk_usage(self.run_dir).free)
                problem = f"the disk is full, {path} was not written ({free} free); existing files are intact"
                if left == 0:
                    remedy = "Free some space and run the same command with --resume=latest"
                    raise OSError(error.errno, f"{problem}. {remedy}") from error
                wait = format_duration(self.wait_sec)
                self.log(f"Warning: {problem}. Free some space: retrying in {wait}, {left} more times.")
                end_sec = time.monotonic() + self.wait_sec
                while (left_sec := end_sec - time.monotonic()) > 0:
                    if self.stop.reason > Stop.NO:
                        raise OSError(error.errno, f"{problem}. Stopped while waiting for space") from error
                    time.sleep(min(left_sec, 0.2))

    def delete_old_snapshots(self) -> None:
        """Keep the newest snapshots only, and the best ones, where --keep asks for that."""
        if self.keep:
            paths = sorted(self.run_dir.glob("network-snapshot-[0-9]*.pkl"), key=lambda path: path.stat().st_mtime_ns)
            for path in paths[: -self.keep]:  # by time: after a return to an older state, later ones are out of date
                path.unlink()
