"""The code that Inductor generates for a GPU that need not be there: few kernels, and none that adds in no fixed order.

Networks are traced on the CPU; then their graphs are moved to a GPU of tensors without values, and lowered for an H200.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from test_inductor import narrow_cifar
from tiny_runs import CPU, micro_batch
from torch.utils import _triton

from training import compilation
from training.config import DatasetSpec
from training.losses import build_phases
from training.state import TrainState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.__version__.startswith("2.11."), reason="uses parts of PyTorch that versions change"),
]

GPU = torch.device("cuda", 0)
MAX_KERNELS = 250  # of G main in float32, which has 243
H200 = SimpleNamespace(
    name="H200", major=9, minor=0, multi_processor_count=132, regs_per_multiprocessor=65536, warp_size=32,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, total_memory=2**37,
)  # fmt: skip


def forget() -> None:
    """Clear what PyTorch remembers of the compiler and the GPU."""
    from torch._inductor.codecache import CacheBase
    from torch._inductor.runtime.hints import DeviceProperties

    torch._dynamo.reset()
    for cached in (
        compilation.resolve_compile, DeviceProperties.create, CacheBase.get_system, _triton.has_triton,
        _triton.has_triton_experimental_host_tma, _triton.has_triton_tensor_descriptor_host_tma,
    ):  # fmt: skip
        cached.cache_clear()


class Generated(Exception):
    """Ends the compilation when the code of a graph is there."""


def stop_after_code(graph: Any) -> None:
    raise Generated(graph.codegen()[0].value)


def to_gpu(module: torch.fx.GraphModule, inputs: list[Any]) -> list[Any]:
    """Let a graph make its tensors on the GPU; returns inputs there."""
    for node in module.graph.nodes:
        node.args, node.kwargs = torch.fx.node.map_aggregate(
            (node.args, node.kwargs), lambda x: GPU if isinstance(x, torch.device) else x
        )
    with next(x.fake_mode for x in inputs if isinstance(x, torch.Tensor)):
        return [
            torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=GPU) if isinstance(x, torch.Tensor) else x
            for x in inputs
        ]


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The code generated for each graph, forward and backward; the graphs themselves run on the CPU."""
    pytest.importorskip("triton")
    from torch._dynamo.device_interface import CudaInterface
    from torch._functorch import config as functorch_config
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._inductor import compile_fx
    from torch._inductor.graph import GraphLowering

    found: list[str] = []

    def compile_for_gpu(module: torch.fx.GraphModule, inputs: list[Any], **settings: Any) -> Any:
        moved = copy.deepcopy(module)
        settings["cudagraphs"] = compile_fx.BoxedBool(False)
        with pytest.raises(Generated) as caught:
            compile_fx._InProcessFxCompile().codegen_and_compile(moved, to_gpu(moved, inputs), [], settings)
        found.append(str(caught.value))
        return make_boxed_func(module.forward)

    answers: dict[str, Any] = {  # of a machine with an H200
        "get_device_properties": lambda device=None: H200, "get_device_capability": lambda device=None: (9, 0),
        "current_device": lambda: 0, "is_bf16_supported": lambda including_emulation=False: True,
        "maybe_exchange_device": lambda device: 0, "exchange_device": lambda device: 0,
    }  # fmt: skip
    monkeypatch.setattr(compilation, "why_unavailable", lambda device: "")
    forget()
    with ExitStack() as stack:
        stack.enter_context(functorch_config.patch(enable_autograd_cache=False))
        for name, function in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, function, create=True))
            for interface in (CudaInterface, CudaInterface.Worker):
                stack.enter_context(patch.object(interface, name, staticmethod(function), create=True))
        stack.enter_context(patch.object(CudaInterface, "is_available", staticmethod(lambda: True)))
        stack.enter_context(patch("torch.utils._triton.triton_hash_with_backend", lambda: ""))
        stack.enter_context(patch.object(GraphLowering, "_compile_to_module", stop_after_code))
        stack.enter_context(patch.object(compile_fx, "_compile_fx_inner", compile_for_gpu))
        yield found
    forget()


def test_kernels_of_the_generator_phase(codes: list[str]) -> None:
    state = TrainState(narrow_cifar(), DatasetSpec(32, 32, 3), CPU)
    build_phases(state)[0].step([micro_batch(z_dim=state.G.z_dim, size=32)])
    assert len(codes) == 2 * len(("synthesis", "augmentation", "discriminator"))
    launches = [len(re.findall(r"(?m)^ +triton_\w+\.run\(", code)) for code in codes]
    assert 0 < sum(launches) <= MAX_KERNELS, launches
    assert not any("tl.atomic" in code or "index_put" in code for code in codes)
