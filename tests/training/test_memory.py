"""Recomputed stages change nothing but memory."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny_runs import assert_same, train

from benchmarks.timing import saved_bytes
from training.config import DatasetSpec, PerformanceConfig, RunConfig
from training.networks.generator import Generator
from training.presets import preset


def test_recomputed_stages_give_the_same_run(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    """Every weight, average and statistic, bit for bit: noise is drawn again as it was."""
    config = tiny_config.changed(schedule={"kimg": 0.024})
    states = []
    for stages in (0, 1, 2):
        changed = replace(config, performance=PerformanceConfig(recomputed_stages=stages))
        states.append(train(changed, tiny_data, tmp_path / str(stages)).state.state_dict())
    assert_same(states[1], states[0])
    assert_same(states[2], states[0])


def test_recomputed_stages_store_less() -> None:
    spec = DatasetSpec(32, 32, 3)
    G = Generator(preset("cifar", spec).generator, spec)
    ws = torch.randn(2, G.num_ws, G.w_dim)
    plain = saved_bytes(G, lambda: G.synthesis(ws))
    assert saved_bytes(G, lambda: G.synthesis(ws, recomputed_stages=2)) < 0.5 * plain
