"""Recomputed stages change nothing but memory, and the estimate knows precision and recomputation."""

from dataclasses import replace
from pathlib import Path

import torch
from test_loop import assert_same, train

from training.config import DatasetSpec, PerformanceConfig, RunConfig
from training.networks.generator import Generator
from training.plan.memory import activation_bytes, saved_bytes
from training.plan.summary import summary
from training.precision import KNOWN
from training.presets import preset


def test_recomputed_stages_give_the_same_run(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Every weight, average and statistic, bit for bit: noise is drawn again as it was."""
    config = replace(tiny_config, schedule=replace(tiny_config.schedule, kimg=0.024))
    states = []
    for stages in (0, 1, 2):
        changed = replace(config, performance=PerformanceConfig(recomputed_stages=stages))
        states.append(train(changed, tiny_data, tmp_path / str(stages)).state.state_dict())
    assert_same(states[1], states[0])
    assert_same(states[2], states[0])


def estimate(config: RunConfig, spec: DatasetSpec, precision: str = "fp32", stages: int = 0) -> dict[str, int]:
    performance = PerformanceConfig(precision, recomputed_stages=stages)
    return activation_bytes(replace(config, performance=performance), spec, 8, KNOWN[precision])


def test_estimate_is_what_a_pass_stores(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    """Found without computing, and with real tensors."""
    config = replace(tiny_config, generator=replace(tiny_config.generator, widths=(64, 64)))
    G = Generator(config.generator, tiny_spec)
    ws = torch.randn(8, G.num_ws, G.w_dim)
    D_part = estimate(config, tiny_spec)["D_main"]
    mapping = saved_bytes(G, lambda: G.mapping(torch.randn(8, 8)))
    for dtype, name in ((None, "fp32"), (torch.bfloat16, "bf16")):
        real = saved_bytes(G, lambda dtype=dtype: G.synthesis(ws, dtype=dtype)) + mapping
        found = estimate(config, tiny_spec, name)["G_main"]
        assert real < found < 1.1 * (real + D_part)


def test_estimate_falls_with_precision_and_recomputation() -> None:
    spec = DatasetSpec(32, 32, 3)
    config = preset("cifar", spec)
    plain, half, recomputed = (estimate(config, spec, *how)["G_main"] for how in (("fp32",), ("bf16",), ("bf16", 2)))
    assert half < 0.7 * plain
    assert recomputed < 0.7 * half


def test_paper256_fits_into_16_gb_at_batch_8() -> None:
    spec = DatasetSpec(256, 256, 3)
    config = preset("paper256", spec)
    assert max(estimate(config, spec).values()) < 8e9  # and about as much again for what passes through


def test_summary_names_the_precision(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    assert "a process in bf16" in summary(replace(tiny_config, performance=PerformanceConfig("bf16")), tiny_spec)
