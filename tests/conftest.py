"""Shared by all tests: the tiny configuration and its images."""

import lzma
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.checkpoint.snapshot import save_snapshot
from training.config import (
    AugmentConfig,
    DataConfig,
    DatasetSpec,
    DiscriminatorConfig,
    EmaConfig,
    GeneratorConfig,
    LossConfig,
    RunConfig,
    ScheduleConfig,
)
from training.state import TrainState

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a background job; child processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the networks of the tests are too small for more
ROOT = Path(__file__).parents[1]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: bytes themselves may differ between the workers, and those refuse to start then."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def tiny_config() -> RunConfig:
    """A run that exercises every phase, mixing and augmentation on 16x16 images in seconds."""
    return RunConfig(
        preset="tiny",
        data=DataConfig(workers=0),
        generator=GeneratorConfig(widths=(32, 16), layers=(1, 2), head_width=8, z_dim=8, w_dim=16),
        discriminator=DiscriminatorConfig(channel_base=128, channel_max=16, mbstd_group=4, mapping_layers=2),
        loss=LossConfig(r1_gamma=1.0, r1_interval=2, pl_weight=2.0, pl_interval=2, mixing_prob=0.5),
        augment=AugmentConfig(mode="ada", p=0.3, interval=2, speed_kimg=1.0),
        ema=EmaConfig(kimg=0.02),
        schedule=ScheduleConfig(kimg=0.048, batch=8, tick_kimg=0.016, snap_ticks=1, seed=5),
    )


@pytest.fixture(scope="session")
def tiny_spec() -> DatasetSpec:
    """Unlabelled 16x16 RGB."""
    return DatasetSpec(16, 16, 3)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recorded checkpoints of the published program."""
    folder = tmp_path_factory.mktemp("published")
    for path in (ROOT / "tests" / "data" / "published").glob("*.pkl.xz"):
        (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    return folder


@pytest.fixture(scope="session")
def snapshot(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with the classes red, green and blue."""
    path = tmp_path_factory.mktemp("snapshot") / "net.pkl"
    save_snapshot(
        path, TrainState(tiny_config, DatasetSpec(16, 16, 3, 3, ("red", "green", "blue")), torch.device("cpu"))
    )
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 60 demo digits, as dataset_tool.py writes it."""
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    command = [sys.executable, str(ROOT / "dataset_tool.py"), "--source=demo", f"--dest={path}", "--max-images=60"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the dataset format: 30 images of 16x16 px in 3 classes."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    rng = np.random.default_rng(0)
    labels = []
    for index in range(30):
        colour = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])[index % 3]
        noise = rng.integers(-30, 30, size=(16, 16, 3))
        name = f"00000/img{index:08d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(folder / name)
        labels.append(f'["{name}", {index % 3}]')
    text = '{"labels": [' + ", ".join(labels) + '], "class_names": ["red", "green", "blue"]}'
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return folder
