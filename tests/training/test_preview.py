from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dnnlib.images.writer import save_grid
from torch_utils.images import to_uint8
from training.data.stream import ImageDataset
from training.run.preview import Preview


def test_quantisation_truncates() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.9999, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 255]
    assert to_uint8(torch.tensor([(100.9 - 128) / 127.5])).tolist() == [100]


def test_grid_places_images_row_by_row(tmp_path: Path) -> None:
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(2, axis=2).repeat(3, axis=3) + 1
    save_grid(tmp_path / "grid.png", images, columns=3)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))  # grey stays grey
    assert grid.shape == (4, 9)
    assert grid[::2, ::3].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_columns_are_classes(tiny_data: Path) -> None:
    preview = Preview(ImageDataset(tiny_data, use_labels=True), z_dim=8, seed=0, device=torch.device("cpu"))
    assert preview.columns == 3
    assert preview.c.argmax(dim=1).tolist() == [0, 1, 2] * 8
    again = Preview(ImageDataset(tiny_data, use_labels=True), z_dim=8, seed=0, device=torch.device("cpu"))
    assert torch.equal(preview.z, again.z)
