"""CUDA graphs without a GPU: what a compiled pass returned is written over as soon as the next micro-batch begins.

Graphs own the memory of their results, of the activations and of the gradients that their backward passes return. Here
compiled networks run as they are, and what would belong to graphs turns into NaN where a replay would write over it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from tiny_runs import assert_same, start
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from training import compilation
from training.augment import pipe
from training.config import PerformanceConfig, RunConfig
from training.loop import step
from training.losses import base
from training.state import TrainState


class GraphMemory:
    """The results of compiled passes since the last `replay`."""

    def __init__(self) -> None:
        self.storages: list[torch.UntypedStorage] = []  # not the tensors: autograd would see that somebody holds them
        self.num_replays = 0

    def compiler(self, graph: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
        """A compiler for `aot_autograd` that runs a graph as it is."""

        def run(*arguments: Any) -> Any:
            outputs = graph(*arguments)
            given = {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)}
            storages = [x.untyped_storage() for x in outputs if isinstance(x, Tensor)]
            self.storages += [storage for storage in storages if storage.data_ptr() not in given]
            return outputs

        return make_boxed_func(run)

    def replay(self) -> None:
        """Write over everything: the bits of NaN in any float dtype."""
        self.num_replays += 1
        for storage in self.storages:
            storage.fill_(255)
        self.storages.clear()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> GraphMemory:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    memory, real = GraphMemory(), torch.compile
    backend = aot_autograd(fw_compiler=memory.compiler, bw_compiler=memory.compiler)
    monkeypatch.setattr(compilation, "resolve_compile", lambda choice, device: (choice == "1", ""))
    for module in (compilation, base):
        monkeypatch.setattr(module, "resolve_graphs", lambda performance, device: performance.cuda_graphs is not False)
    monkeypatch.setattr(torch, "compile", lambda network, **_: real(network, backend=backend, dynamic=False))
    return memory


def trained(config: RunConfig, data: Path, run_dir: Path, memory: GraphMemory | None) -> TrainState:
    """The state after four steps of every phase, of two micro-batches each."""
    loop = start(config, data, run_dir)
    for _ in range(4):
        step(loop, loop.next_batch())
    if memory is not None:
        memory.replay()
    return loop.state


@pytest.fixture
def config(tiny_config: RunConfig) -> RunConfig:
    return replace(
        tiny_config,
        schedule=replace(tiny_config.schedule, batch_gpu=4),
        performance=PerformanceConfig(compile="1", cuda_graphs=None),
    )


def test_nothing_of_a_graph_is_used_after_the_next_began_and_compiled_equals_eager(
    config: RunConfig, tiny_data: Path, tmp_path: Path, memory: GraphMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipe, "random_runs", partial(pipe.random_runs, by_distribution=True)
    )  # eager draws as compiled does
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    kept = trained(config, tiny_data, tmp_path / "kept", None)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 6  # three networks, trained and not
    memory.storages.clear()
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", memory.replay)
    written_over = trained(config, tiny_data, tmp_path / "written_over", memory)
    assert memory.num_replays == 4 * 2 * 2 + 1  # steps, main phases, micro-batches
    assert kept.all_finite()
    assert_same(written_over.state_dict(), kept.state_dict())
    performance = replace(config.performance, compile="0", cuda_graphs=None)
    eager = trained(replace(config, performance=performance), tiny_data, tmp_path / "eager", None)
    for ours, theirs in ((kept.G, eager.G), (kept.D, eager.D)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in theirs.state_dict().items():
            assert (ours.state_dict()[name] - value).abs().mean() < 1e-4, name
