"""The randomness of a step follows from (seed, images seen, rank), never from history, so a resumed run repeats it."""

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """A 63-bit seed that depends on every number of the key and on how many there are."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_step(seed: int, cur_nimg: int, rank: int) -> None:
    """Seed torch's default generators: noise and augmentation of one step on one rank."""
    torch.manual_seed(derive_seed(seed, 0, cur_nimg, rank))


def step_generator(seed: int, cur_nimg: int, stream: int) -> torch.Generator:
    """A CPU generator for what all ranks draw alike in one step: latents, labels, mixing. `stream` tells draws apart."""
    return torch.Generator().manual_seed(derive_seed(seed, 1, cur_nimg, stream))
