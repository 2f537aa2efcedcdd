import numpy as np

from dnnlib.sources.demo_digits import SPLITS, digits


def test_prefix_is_stable_and_labels_are_balanced() -> None:
    short, long = list(digits("train", 20)), list(digits("train", 40))
    assert [label for _, label in long] == [index % 10 for index in range(40)]
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(short, long, strict=False))
    assert short[0][0].shape == (32, 32, 3)
    assert short[0][0].dtype == np.uint8


def test_splits_share_no_image() -> None:
    train = {image.tobytes() for image, _ in digits("train")}
    score = {image.tobytes() for image, _ in digits("score")}
    assert (len(train), len(score)) == (SPLITS["train"][1], SPLITS["score"][1]) == (6000, 1000)
    assert not train & score


def test_digits_are_whole() -> None:
    """The border shows the background alone, so no digit is cut off."""
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert all((image[border] == image[0, 0]).all() for image, _ in digits("score", 500))
