"""Runs the training loop: saves the state when asked to stop, and returns to the last good state after a divergence."""

from torch_utils import distributed
from training.checkpoint.state_file import find_state
from training.loop import train
from training.run.stop import Diverged, Stop, Stopped
from training.run.training_run import TrainingRun


class DivergedError(ValueError):
    """The run diverged again and again; the message names what to try."""


def supervise(run: TrainingRun) -> Stop:
    """Train to the end, or until asked to stop; returns why the run stopped early, if it did.

    Raises DivergedError, and what a rank raised; report.html states it. After unreadable images the state is saved first.
    """
    run.run_report.write()  # an earlier session may have ended otherwise
    try:
        reason = train_and_recover(run)
    except Exception as error:
        run.run_report.write("failed", str(error))
        raise
    run.run_report.write(*("done", "") if reason is Stop.NO else ("stopped", reason.text))
    return reason


def train_and_recover(run: TrainingRun) -> Stop:
    """Train, returning to the last good state after each divergence; returns why the run stopped early, if it did."""
    run.measure_missed()
    returned_to: list[int] = []  # the images seen of each state that the run returned to
    try:
        while True:
            try:
                train(run)
                return run.skipped_metrics
            except Diverged:
                returned_to.append(roll_back(run, returned_to))
    except Stopped as stopped:
        run.save_state()
        with distributed.raise_on_all_ranks():
            if stopped.reason is Stop.FAILED and stopped.failure is not None:
                raise stopped.failure from None
        return stopped.reason
    finally:
        run.reporter.close()


def roll_back(run: TrainingRun, returned_to: list[int]) -> int:
    """Return to the last good state, with another order of the images and other random numbers from there on.

    Gives up after `max_rollbacks` returns to one state: between them the run made no progress that was saved. Takes the images
    seen of the states of earlier returns, and returns those of this one.
    """
    state, schedule, kimg = run.state, run.schedule, run.state.cur_nimg / 1000
    saved = find_state(run.run_dir, run.log)
    distributed.assert_equal_across_ranks("the saved state", [saved and saved["cur_nimg"]])
    if saved is None:
        raise DivergedError(f"the run diverged at {kimg:g} kimg, and there is no saved state to return to")
    num_returns = returned_to.count(saved["cur_nimg"])
    if num_returns >= schedule.max_rollbacks:
        raise DivergedError(
            f"the run diverged at {kimg:g} kimg, after {num_returns} returns to a good state: its losses or "
            f"gradients are not finite for {state.finite.consecutive_bad} steps. The last good state and all snapshots are "
            f"kept. Try a larger --gamma, a smaller learning rate (--set optimizer.g_lr=0.001 --set optimizer.d_lr=0.001), "
            f"or --precision=fp32, with --resume=latest --force"
        )
    num_rollbacks = state.num_rollbacks + 1
    run.restore(saved)
    state.num_rollbacks = num_rollbacks
    run.start_streams()
    run.log(
        f"Warning: the run diverged at {kimg:g} kimg (losses or gradients are not finite). Returning to "
        f"{state.cur_nimg / 1000:g} kimg with another order of the images, {num_returns + 1} of at most "
        f"{schedule.max_rollbacks} times."
    )
    return state.cur_nimg
