"""Sheets show images unchanged, enlarged by whole factors."""

import numpy as np

from sampling.captions import MIN_CELL_PX, enlargement, sheet


def find(page: np.ndarray, image: np.ndarray) -> bool:
    """Whether an image lies somewhere on a page."""
    height, width = image.shape[:2]
    starts = np.argwhere((page[: len(page) - height + 1, : page.shape[1] - width + 1] == image[0, 0]).all(axis=2))
    return any(np.array_equal(page[y : y + height, x : x + width], image) for y, x in starts)


def test_small_images_are_enlarged_by_whole_factors_and_large_ones_are_not() -> None:
    assert [enlargement(*size) for size in ((32, 32), (16, 24), (40, 96), (256, 256))] == [3, 4, 1, 1]


def test_every_image_is_there_with_each_pixel_a_square() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 24, 3), dtype=np.uint8) for _ in range(4)]
    page = sheet([[(images[0], "first"), (images[1], "")], [None, (images[2], ""), (images[3], "")]])
    assert page.dtype == np.uint8 and page.shape[2] == 3
    for image in images:
        assert find(page, image.repeat(3, axis=0).repeat(3, axis=1))
    assert page.shape[1] >= 3 * 72


def test_captions_take_space_only_where_there_are_some() -> None:
    image = np.full((96, 96, 1), 128, np.uint8)
    plain, titled = sheet([[(image, "")], [(image, "")]]), sheet([[(image, "title")], [(image, "")]])
    assert plain.shape[0] < titled.shape[0] < plain.shape[0] + 30
    assert plain.min() == 128 and titled.min() < 100
    assert MIN_CELL_PX == 96


def test_captions_do_not_run_into_each_other() -> None:
    """Tall images are narrower than a caption."""
    image = np.full((96, 24, 1), 128, np.uint8)
    one, two = sheet([[(image, "head 3  12.3x")]]), sheet([[(image, "head 3  12.3x"), (image, "")]])
    assert np.array_equal(two[:, : one.shape[1]], one)
    assert two[:15, one.shape[1] :].min() == 255
