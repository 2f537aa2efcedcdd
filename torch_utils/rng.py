"""Random numbers of a step depend on (seed, images seen, rank), never on history, so a resumed run repeats them."""

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed that depends on every number of the key and on their count."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_step(seed: int, cur_nimg: int, rank: int) -> None:
    """Seed torch's default generators, which draw noise and augmentation of one step on one rank."""
    torch.manual_seed(derive_seed(seed, 0, cur_nimg, rank))


def step_generator(seed: int, cur_nimg: int, stream: int) -> torch.Generator:
    """Return a CPU generator for draws that are the same on all ranks: latents, labels, mixing. `stream` separates them."""
    return torch.Generator().manual_seed(derive_seed(seed, 1, cur_nimg, stream))
