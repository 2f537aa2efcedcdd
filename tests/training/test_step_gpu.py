"""A step on a GPU: nothing waits for the device, and compiled networks and graphs train alike."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import start, without_randomness

from training.augment.pipe import AugmentPipe
from training.compilation import forward_pass
from training.config import PerformanceConfig, RunConfig
from training.loop import step

GPU = torch.device("cuda", 0)
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_no_phase_waits_for_the_device(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, precision: str) -> None:
    """Four steps hold every phase and an adjustment of the augmentation; the first ones build and choose kernels."""
    config = replace(tiny_config, performance=PerformanceConfig(precision))
    loop = start(config, tiny_data, tmp_path / "run", GPU)
    for _ in range(4):
        step(loop, loop.next_batch())
    for _ in range(4):
        reals = loop.next_batch()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(loop, reals)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_compiled_augmentation_is_eager_augmentation(cuda_graphs: bool) -> None:
    """With probability 0, which computes all of it, since random numbers are drawn otherwise; graphs are replayed."""
    augment = AugmentPipe("bgc").cuda()
    run = forward_pass(augment, PerformanceConfig(compile="1", cuda_graphs=cuda_graphs), GPU)
    p = torch.zeros([], device="cuda")
    for _ in range(4):
        if cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        images = (torch.rand(4, 3, 32, 32, device="cuda") * 2 - 1).requires_grad_()
        results = []
        for y in (augment(images, p), run(images, p)):
            (gradient,) = torch.autograd.grad(y.square().sum(), images)
            results.append((y.detach().clone(), gradient.clone()))
        for ours, theirs in zip(*results, strict=True):
            assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_graphs_are_recorded_once(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Recording in every step would be slow and take more memory each time; PyTorch logs it at debug level only."""
    config = replace(tiny_config, performance=PerformanceConfig(compile="1", cuda_graphs=True))
    loop = start(config, tiny_data, tmp_path / "run", GPU)
    found = torch._dynamo.utils.counters["inductor"]
    found.clear()
    for _ in range(4):
        step(loop, loop.next_batch())
    early = dict(found)
    loop.save_state()
    for _ in range(12):
        step(loop, loop.next_batch())
    again = "cudagraph_recorded_non_static_inputs"
    assert found[again] == early[again] > 0
    assert not found["cudagraph_skips"] and not found["cudagraph_partitions"]


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_compiled_training_is_eager_training(tiny_config, tiny_data, tmp_path, cuda_graphs) -> None:
    """With two micro-batches a step, so that gradients of graphs add up. Noise and augmentation are drawn otherwise."""
    config = without_randomness(tiny_config.changed(schedule={"batch_gpu": 4}))
    weights = []
    for name, performance in (
        ("eager", PerformanceConfig()),
        ("compiled", PerformanceConfig(compile="1", cuda_graphs=cuda_graphs)),
    ):
        loop = start(replace(config, performance=performance), tiny_data, tmp_path / name, GPU)
        for _ in range(4):
            step(loop, loop.next_batch())
        weights.append(torch.cat([p.detach().flatten() for p in loop.state.D.parameters()]))
    assert (weights[0] - weights[1]).abs().mean() < 1e-3
