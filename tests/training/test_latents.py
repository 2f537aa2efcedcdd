from dataclasses import replace

import numpy as np
import torch

from training.data.labels import Labels
from training.latents import LatentSource

CPU = torch.device("cpu")
SOURCE = LatentSource(
    seed=1, z_dim=4, num_ws=5, labels=Labels(np.eye(3)), mixing_prob=0.5, batch_size=12, micro_batch=3
)  # fmt: skip


def test_latents_follow_from_seed_and_clock() -> None:
    first, again, later = SOURCE.draw(32, 0, CPU), SOURCE.draw(32, 0, CPU), SOURCE.draw(44, 0, CPU)
    assert torch.equal(first[1].z, again[1].z)
    assert not torch.equal(first[1].z, later[1].z)
    assert not torch.equal(first[1].z, SOURCE.draw(32, 1, CPU)[1].z)
    assert not torch.equal(first[1].z, replace(SOURCE, seed=2).draw(32, 0, CPU)[1].z)


def test_ranks_share_out_what_one_process_draws() -> None:
    whole = SOURCE.draw(0, 0, CPU)
    parts = [replace(SOURCE, rank=rank, world_size=2).draw(0, 0, CPU) for rank in (0, 1)]
    assert [len(part) for part in parts] == [2, 2]
    for k, latents in enumerate(whole):
        shared = parts[k % 2][k // 2]
        assert torch.equal(latents.z, shared.z)
        assert torch.equal(latents.c, shared.c)
        assert (latents.mix_z is None) == (shared.mix_z is None)
        assert latents.mix_from == shared.mix_from
        assert latents.seed == shared.seed
    assert len({latents.seed for latents in whole + SOURCE.draw(12, 0, CPU)}) == 8


def test_each_micro_batch_mixes_by_itself() -> None:
    """Of one step some mix and others do not, from different layers on, with latents that differ."""
    mixed = [latents for latents in replace(SOURCE, batch_size=300).draw(0, 0, CPU) if latents.mix_z is not None]
    assert 25 < len(mixed) < 75  # 5 standard deviations of 100 draws
    assert {latents.mix_from for latents in mixed} == {1, 2, 3, 4}
    assert torch.stack([latents.mix_z for latents in mixed]).unique().numel() == len(mixed) * 12


def test_without_mixing_nothing_else_changes() -> None:
    for plain, mixed in zip(replace(SOURCE, mixing_prob=0.0).draw(8, 0, CPU), SOURCE.draw(8, 0, CPU), strict=True):
        assert plain.mix_z is None
        assert torch.equal(plain.z, mixed.z) and torch.equal(plain.c, mixed.c) and plain.seed == mixed.seed


def test_labels_are_those_of_the_data() -> None:
    source = replace(SOURCE, labels=Labels(np.array([0, 0, 0, 2]), 3))
    classes = torch.cat([latents.c for step in range(100) for latents in source.draw(step, 0, CPU)]).argmax(dim=1)
    counts = classes.bincount(minlength=3)
    assert counts[1] == 0
    assert 0.65 < counts[0] / counts.sum() < 0.85
