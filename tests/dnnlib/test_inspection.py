from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnlib.archive.label_table import Label
from dnnlib.packing.inspection import NUM_ROWS, inspect_source, report, sample_sheet
from dnnlib.sources.image_sources import open_source
from dnnlib.sources.source_images import ArrayImage, ImageSource

RNG = np.random.default_rng(0)


def _arrays(count: int, label: Label | None = None, size: tuple[int, int] = (8, 8)) -> list[ArrayImage]:
    return [
        ArrayImage(f"image {index}", RNG.integers(0, 256, (*size, 3), dtype=np.uint8), label) for index in range(count)
    ]


def _source(images: list[ArrayImage], labelled: bool = False, names: tuple[str, ...] = ()) -> ImageSource:
    return ImageSource(len(images), lambda: iter(images), labelled, names, packing_reason="")


def _text(images: ImageSource, refusal: str | None = None) -> str:
    return "\n".join(report(inspect_source(images, 1), images, ["--source=X"], lambda width, height: refusal))


@pytest.mark.parametrize("workers", [1, 2])
def test_files_of_all_kinds_are_counted(tmp_path: Path, workers: int) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (12, 16, 4), dtype=np.uint8))
    noise.convert("RGB").save(tmp_path / "a.png")
    noise.convert("RGB").save(tmp_path / "b.bmp")
    noise.save(tmp_path / "c.png")
    noise.convert("L").save(tmp_path / "d.jpg")
    noise.convert("P").save(tmp_path / "e.gif")
    noise.convert("RGB").resize((8, 8)).save(tmp_path / "f.png")
    Image.fromarray(np.full((12, 16), 40_000, np.uint16)).save(tmp_path / "g.png")
    (tmp_path / "h.png").write_text("hello")
    (tmp_path / "i.png").write_bytes((tmp_path / "a.png").read_bytes()[:-100])
    images = open_source(str(tmp_path))
    found = inspect_source(images, workers)
    assert found.count == 9
    assert found.formats == {"PNG": 4, "BMP": 1, "JPEG": 1, "GIF": 1}
    assert found.modes == {"colour": 3, "colour with alpha": 1, "grey": 1, "palette": 1, "16-bit grey": 1}
    assert found.sizes == {(16, 12): 6, (8, 8): 1}
    assert found.num_transparent == 1
    assert found.num_unusable == 2
    assert found.messages[0] == f"h.png in {tmp_path} is not an image, or damaged"
    assert found.messages[1].startswith(f"i.png in {tmp_path} is damaged")
    assert found.num_repeated == 1
    assert found.repeated == [[f"a.png in {tmp_path}", f"b.bmp in {tmp_path}"]]
    assert sum(map(len, found.samples.values())) == 7


def test_samples_of_classes_are_of_their_class_and_not_the_first_ones() -> None:
    images = [image for label in (2, 0) for image in _arrays(50, label)]
    found = inspect_source(_source(images, labelled=True, names=("cat", "dog", "owl")), 1)
    assert list(found.samples) == [0, 2]
    for label, chosen in found.samples.items():
        assert len({image.origin for image in chosen}) == NUM_ROWS
        assert {image.label for image in chosen} == {label}
        assert max(int(image.origin.split()[1]) for image in chosen) > NUM_ROWS


def test_text_of_a_good_set() -> None:
    images = [*_arrays(3, 0), *_arrays(2, 2)]
    lines = _text(_source(images, True, ("cat", "dog", "owl"))).split("\n")
    assert [line.split() for line in lines] == [
        ["5", "images"], ["format", "pixels", "5"], ["size", "8x8", "5"], ["colour", "colour", "5"],
        ["labels", "3", "classes"], ["0", "cat", "3"], ["1", "dog", "0"], ["2", "owl", "2"],
        ["unusable", "none"], ["duplicates", "none"], ["train.py", "can", "train", "on", "it", "as", "it", "is"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "side"),
    [({(70, 90): 95, (20, 30): 5}, 64), ({(70, 90): 85, (50, 50): 15}, 48), ({(9, 9): 3, (8, 8): 3}, 32)],
)
def test_proposed_side_enlarges_few_images(sizes: dict[tuple[int, int], int], side: int) -> None:
    images = [image for size, count in sizes.items() for image in _arrays(count, size=size)]
    text = _text(_source(images))
    assert "- images of 2 sizes" in text
    assert f"--source=X --dest=NEW.zip --transform=center-crop --width={side} --height={side}" in text


def test_grid_keeps_shapes_and_enlarges_whole_pixels() -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 8:] = (255, 0, 0)
    tall = np.full((400, 100, 1), 90, np.uint8)
    found = inspect_source(_source([ArrayImage("wide", wide, 0), ArrayImage("tall", tall, 1)], labelled=True), 1)
    page = sample_sheet(found, ["a name that is far too long for this", "b"])
    first = page[15 + 4 :, 4:][:96, :96]
    assert np.array_equal(first[24:72], wide.repeat(6, axis=0).repeat(6, axis=1))
    assert (first[:24] == 255).all()
    assert ((page == 90).all(axis=2).sum(axis=1) == 24).sum() == 96
