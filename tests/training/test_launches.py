"""How many operations the phases start: each is a kernel launch on a GPU, and most of an eager step at small batches."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.contenders import Ours
from training.config import DatasetSpec, RunConfig
from training.presets import preset

SPEC = DatasetSpec(32, 32, 3)
# What makes no kernel: views, and memory that is only taken.
FREE = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "empty_strided",
    "expand", "lift_fresh", "new_empty", "new_empty_strided", "permute", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view",
    "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts the operations that start a kernel, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def cifar_structure() -> RunConfig:
    """The cifar preset with narrow networks: the number of operations does not depend on widths."""
    config = preset("cifar", SPEC)
    return config.changed(generator={"widths": (64, 32, 32)}, discriminator={"channel_max": 8}, schedule={"batch": 4})


def launches(run: Callable[[], object]) -> Counter[str]:
    run()  # the optimizers take their memory in the first step
    with Launches() as mode:
        run()
    return mode.counts


def test_an_eager_iteration_starts_at_most_1500_operations() -> None:
    config = cifar_structure()
    ours = Ours(config, SPEC, 4, torch.device("cpu"))
    iteration, r1 = launches(ours.iteration), launches(lambda: ours.step("d_r1"))
    total = iteration.total() + r1.total() / config.loss.r1_interval
    assert total <= 1500, (iteration.most_common(20), r1.most_common(20))
    assert iteration["mul"] < 260 and iteration["pow"] < 40  # they were 746 and 170
