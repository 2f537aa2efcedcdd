"""Adversarial losses, one per file: the phases of an iteration and what each minimises."""

from training.phases import Phase
from training.registry import create
from training.state import TrainState


def build_phases(state: TrainState) -> list[Phase]:
    """The phases of the configured loss, in the order in which an iteration runs them."""
    phases: list[Phase] = create("loss", state.config.loss.kind, state).phases()
    return phases
