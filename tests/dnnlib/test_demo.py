"""Demo digits are whole; scenes hold as many as the label says, apart, at any size."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from dnnlib.sources.demo import MAX_DIGITS, SPLITS, digits, scenes


@pytest.mark.parametrize("draw", [digits, lambda split, count: scenes(split, 32, 32, count)])
def test_prefix_is_stable_and_labels_are_balanced(draw: Callable[..., list[tuple[np.ndarray, int]]]) -> None:
    short, long = list(draw("train", 12)), list(draw("train", 40))
    assert [label for _, label in long] == [index % len({label for _, label in long}) for index in range(40)]
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(short, long, strict=False))
    assert (short[0][0].shape, short[0][0].dtype) == ((32, 32, 3), np.uint8)
    assert not np.array_equal(next(iter(draw("score", 1)))[0], long[0][0])


def test_splits_share_no_image() -> None:
    assert (SPLITS["train"][1], SPLITS["score"][1]) == (6000, 1000)
    train, score = ({image.tobytes() for image, _ in digits(split, SPLITS[split][1])} for split in ("train", "score"))
    assert (len(train), len(score)) == (6000, 1000)
    assert not train & score


def test_digits_are_whole() -> None:
    """The border shows the background alone, so no digit is cut off."""
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert all((image[border] == image[0, 0]).all() for image, _ in digits("score", 500))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64)])
def test_scenes_show_as_many_digits_as_their_label_says(width: int, height: int) -> None:
    counts = []
    for index, (image, label) in enumerate(scenes("score", width, height, 40)):
        assert label == index % MAX_DIGITS and image.shape == (height, width, 3)
        luma = image @ np.array([0.299, 0.587, 0.114])
        counts.append(ndimage.label(luma > 75, np.ones((3, 3)))[1] - label - 1)
    assert np.mean(np.abs(counts)) < 0.3  # thin strokes break, crowded digits may touch
