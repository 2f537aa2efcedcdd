from torch_utils.rng import derive_seed


def test_seeds_depend_on_every_number() -> None:
    keys = [(0, 0), (0, 1), (1, 0), (1, 0, 0), (2**40, 3)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**63 for key in keys)
