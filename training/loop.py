"""The training loop: one page from the first image to the last."""

from torch_utils.rng import seed_step
from training.run.training_run import RealBatch, TrainingRun


def train(run: TrainingRun) -> None:
    """Train until enough images were seen; before each step, do what is due.

    Raises Stopped or Diverged, which training/supervisor.py handles.
    """
    while True:
        if run.is_due("tick"):
            run.report_status()
        if run.is_due("snapshot"):
            run.save_snapshot()
        if run.is_due("state"):
            run.save_state()
        if run.is_due("snapshot"):
            run.measure()
        if run.is_done:
            return
        step(run, run.next_batch())
        run.check_finite()


def step(run: TrainingRun, reals: RealBatch) -> None:
    """One iteration: every phase that is due takes an optimizer step, then the averages move."""
    state = run.state
    seed_step(state.seed, state.cur_nimg, run.rank)
    for phase in run.phases:
        if phase.is_due(state.batch_index):
            phase.step(list(run.micro_batches(reals, phase)))
    state.advance()
    run.reporter.advance(run.schedule.batch)
