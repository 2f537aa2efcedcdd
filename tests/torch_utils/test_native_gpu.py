"""The compiled operators on GPUs: every dtype, layout and size, streams, several devices, graphs, and the sanitizer."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torch_utils.ops import kernels, native
from torch_utils.ops.bias_act import bias_act, bias_act_reference
from torch_utils.ops.kernels import find_kernel
from torch_utils.ops.native import build, loading, toolchain
from torch_utils.ops.native.selftest import compare
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d, upfirdn2d_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gpu_library() -> None:
    """Builds the library; skips without an nvcc for these GPUs, and fails if it cannot compile."""
    try:
        toolchain.find_nvcc(toolchain.present_architectures())
    except toolchain.OperatorsUnavailable as error:
        pytest.skip(str(error))
    loading.load_library("cuda")


@pytest.fixture(autouse=True)
def compiled(gpu_library: None) -> Iterator[None]:
    native.enable("cuda", "native")
    yield
    kernels.disable_all()


def assert_near(actual: Tensor, expected: Tensor, units: float = 16) -> None:
    """Within so many units of the largest number, `expected` being of higher precision."""
    assert actual.shape == expected.shape
    if actual.numel():
        error = (actual.double() - expected.double()).abs().max()
        assert error <= units * torch.finfo(actual.dtype).eps * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("index", range(torch.cuda.device_count()))
def test_the_check_that_users_run(index: int) -> None:
    assert compare(torch.device("cuda", index)) > 500


def test_other_streams() -> None:
    x, f = torch.randn(8, 64, 64, 64, device="cuda"), setup_filter([1, 3, 3, 1]).cuda()
    expected = upfirdn2d_reference(bias_act_reference(x + 1, None, 1, "lrelu", 0.2, 1.0, None, None, None), f,
                                   (1, 1), (2, 2), (1, 1, 1, 1), False, 1.0)  # fmt: skip
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = x.clone()
        torch.cuda._sleep(50_000_000)  # an operator on another stream would see the numbers before the addition
        late += 1
        y = upfirdn2d(bias_act(late, act="lrelu", gain=1), f, down=2, padding=1)
    stream.synchronize()
    assert_near(y, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_tensors_away_from_the_current_device() -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    x, f = torch.randn(2, 8, 16, 16, device=last, requires_grad=True), setup_filter([1, 3, 3, 1]).to(last)
    y = upfirdn2d(bias_act(x, act="lrelu"), f, padding=[2, 1])
    assert y.device == last and torch.cuda.current_device() == 0
    y.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def free_bytes() -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def test_more_elements_than_32_bits_count() -> None:
    if free_bytes() < 14 * 2**30:
        pytest.skip("needs 14 GB of free GPU memory")
    size = (3, 16, 6800, 6800)  # 2.2e9
    x, bias = torch.ones(size, device="cuda", dtype=torch.float16), torch.arange(16.0, device="cuda").half()
    x[-1, -1, -1, -1] = -50
    y = bias_act(x, bias, act="lrelu", gain=1)
    assert torch.equal(y[-1, :, -1, -2], bias + 1) and y[-1, -1, -1, -1] == -7
    assert torch.equal(y[0, :, 0, 0], bias + 1)
    del y
    f = setup_filter([1, 3, 3, 1]).cuda()
    for down in (1, 2):
        z = upfirdn2d(x, f, down=down, padding=[2, 1, 2, 1])
        part = upfirdn2d_reference(x[-1:, -1:, -64:, -64:].float(), f, (1, 1), (down, down), (2, 1, 2, 1), False, 1.0)
        assert_near(z[-1:, -1:, -16:, -16:], part[:, :, -16:, -16:])
        del z


def test_cuda_graphs() -> None:
    x, f, bias = torch.randn(4, 32, 16, 16, device="cuda"), setup_filter([1, 3, 3, 1]).cuda(), torch.randn(32).cuda()

    def apply() -> Tensor:
        return upfirdn2d(bias_act(x, bias, act="lrelu"), f, down=2, padding=1)

    apply()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = apply()
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert torch.equal(captured, apply())


def test_compiled_code_passes_through() -> None:
    x, bias = torch.randn(4, 32, 16, 16, device="cuda", requires_grad=True), torch.randn(32, device="cuda")
    f = setup_filter([1, 3, 3, 1]).cuda()

    def apply(x: Tensor) -> Tensor:
        return upfirdn2d(bias_act(x * 2, bias, act="lrelu", clamp=1.0), f, padding=[2, 1, 2, 1]).square().sum()

    whole = torch.compile(apply, fullgraph=True)
    (one,), (other,) = torch.autograd.grad(whole(x), x), torch.autograd.grad(apply(x), x)
    assert_near(one, other)


def test_auto_uses_them_after_one_check() -> None:
    native.prepare(torch.device("cuda"), "auto")
    for operator in ("bias_act", "upfirdn2d"):
        assert find_kernel(operator, torch.zeros(1, device="cuda")) and not find_kernel(operator, torch.zeros(1))
    assert list(build.library_path(loading.target_for("cuda")).parent.glob("checked-*"))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_sanitizer(tool: str) -> None:
    """Not initcheck: what other kernels write, to which this is not applied, would seem uninitialised to it."""
    sanitizer = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}{os.pathsep}/usr/local/cuda/bin")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    names = "--kernel-name" if "--kernel-name" in subprocess.getoutput(f"{sanitizer} --help") else "--kernel-regex"
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", names, "kernel_substring=styleformer"]
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []  # PyTorch tries things out
    command += [sys.executable, "-c", "from torch_utils.ops.native.__main__ import check; check('cuda')"]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
