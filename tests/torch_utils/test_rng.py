import torch

from torch_utils.rng import derive_seed, seed_step, step_generator


def test_seeds_depend_on_every_number() -> None:
    keys = [(0, 0), (0, 1), (1, 0), (1, 0, 0), (2**40, 3)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**63 for key in keys)


def test_draws_repeat_whatever_happened_before() -> None:
    seed_step(1, 32, 0)
    first = torch.randn(3)
    torch.randn(100)
    seed_step(1, 32, 0)
    assert torch.equal(torch.randn(3), first)
    seed_step(1, 32, 1)
    assert not torch.equal(torch.randn(3), first)
    assert not torch.equal(
        torch.randn(3, generator=step_generator(1, 32, 0)), torch.randn(3, generator=step_generator(1, 32, 1))
    )
