"""Files of weights that cannot be read."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from metrics.weights.reading import read_state


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.png", "x")


def cut(length: int, is_zip: bool) -> Callable[[Path], None]:
    """Writer of the first bytes of a file of weights, in the newer or the older layout."""

    def write(path: Path) -> None:
        torch.save({"weight": torch.zeros(20_000)}, path, _use_new_zipfile_serialization=is_zip)
        path.write_bytes(path.read_bytes()[:length])

    return write


OTHERS: list[Callable[[Path], object]] = [
    Path.touch, other_zip, cut(40_000, True), cut(40_000, False),
    lambda path: Image.new("RGB", (16, 16)).save(path, "png"),
    lambda path: torch.save(torch.nn.Linear(2, 2), path),
    lambda path: path.write_bytes(pickle.dumps(5, protocol=2)),
]  # fmt: skip


@pytest.mark.parametrize("write", OTHERS)
def test_other_files_are_refused_without_torchs_advice(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError, match=r"weights\.pth .* is not a file of weights, or damaged") as caught:
        read_state(path)
    message = str(caught.value)
    assert "\n" not in message and "weights_only" not in message and "trust" not in message
