"""--batch-gpu=auto, and the steps that a dry run tries."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import CPU, train_script

from dnnlib.dataclass_values import ConfigError
from torch_utils import distributed
from training.config import RunConfig
from training.data.stream import ImageDataset
from training.plan import batch_size
from training.plan.batch_size import agree_on_batch_gpu, initial_batch_gpu, micro_batches, search_batch_gpu
from training.plan.summary import speed
from training.run.folder import read_options, with_batch_gpu_of_newest

CUDA = torch.device("cuda", 0)
GIB = 2**30


@pytest.fixture
def dataset(tiny_data: Path) -> ImageDataset:
    return ImageDataset(tiny_data)


@pytest.mark.parametrize(
    ("batch", "group", "pl_weight", "processes", "expected"),
    [
        (32, 4, 0.0, 1, [32, 16, 8, 4]),  # fewer would be a smaller minibatch-std group
        (32, 4, 0.0, 2, [16, 8, 4]),
        (24, 4, 0.0, 1, [24, 12, 8, 4]),  # 6 is no multiple of the minibatch-std group
        (32, 32, 0.0, 4, [8]),  # the share of a process is smaller than the group
        (12, 3, 2.0, 1, [12, 6]),  # path length needs an even number
    ],
)
def test_valid_numbers(tiny_config, dataset, batch, group, pl_weight, processes, expected):
    config = tiny_config.changed(
        schedule={"batch": batch}, discriminator={"mbstd_group": group}, loss={"pl_weight": pl_weight}
    )
    assert micro_batches(config, dataset, processes) == expected


def test_no_valid_number(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        micro_batches(tiny_config, dataset, 3)
    config = tiny_config.changed(schedule={"batch": 48}, discriminator={"mbstd_group": 32})
    with pytest.raises(ConfigError, match="minibatch-std group 32"):  # 24 and fewer would divide, but cut the group
        micro_batches(config, dataset, 1)


def test_largest_number_that_fits(tiny_config, dataset, monkeypatch, capsys):
    """On a device of 10 GiB in which an image takes 1 GiB."""
    taken = [0]

    class FakeProbe:
        def __init__(self, config: RunConfig, *given: Any) -> None:
            taken[0] = config.schedule.micro_batch(1)
            peak[0] = None

        def step(self) -> None:
            if taken[0] > 10:
                raise shortage[0]
            if peak[0] is None:
                peak[0] = (taken[0] + 5) * GIB  # with what cuDNN's trials take
            else:
                peak[0] = taken[0] * GIB

        def restart(self) -> None:
            pass

    peak: list[int | None] = [None]
    shortage: list[Exception] = []
    monkeypatch.setattr(batch_size, "Probe", FakeProbe)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 10 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peak[0])
    monkeypatch.setattr("training.compilation.resolve_compile", lambda choice, device: (True, ""))

    def found(cache_gib: int = 0, graphs: bool = False) -> int | None:
        monkeypatch.setattr(batch_size, "device_bytes", lambda *given: cache_gib * GIB)
        config = tiny_config.changed(schedule={"batch": 16}, performance={"compile": "1", "cuda_graphs": graphs})
        return search_batch_gpu(config, dataset, 1, CUDA).schedule.batch_gpu

    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):
        shortage[:] = [error]
        assert found() == 8
    assert "8 images per forward pass fit into the memory of cuda:0" in capsys.readouterr().out
    assert found(cache_gib=2) == 4
    assert found(graphs=True) == 4  # they keep memory of their own
    with pytest.raises(ValueError, match=r"not even 4 images per forward pass fit into the memory of cuda:0"):
        found(cache_gib=8)


def agree_with_another(given: tuple[RunConfig, Path]) -> None:
    config, folder = given
    distributed.init(CPU)
    rank = distributed.rank()
    agreed = agree_on_batch_gpu(config.changed(schedule={"batch_gpu": [4, 2][rank]}))
    assert agree_on_batch_gpu(config) == config
    (folder / str(rank)).write_text(str(agreed.schedule.batch_gpu))
    distributed.shutdown()


def test_processes_take_what_fits_into_each_gpu(tiny_config: RunConfig, tmp_path: Path) -> None:
    distributed.spawn(agree_with_another, 2, (tiny_config, tmp_path))
    assert [(tmp_path / name).read_text() for name in "01"] == ["2", "2"]


def test_speed_is_measured_unless_it_would_take_long(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    text = speed(tiny_config, dataset, CPU)
    assert "kimg per day: " in text and "per step of 8 images on cpu, mean of 10 steps" in text
    pattern = r"\nMemory: +([\d.]+) ([MG]iB) per process .* on cpu in fp32 with 8 images per forward pass$"
    memory = re.search(pattern, text)
    assert memory and 0.05 < float(memory[1]) / {"MiB": 1024, "GiB": 1}[memory[2]] < 8
    assert "not measured" in speed(tiny_config.changed(schedule={"batch": 2**20}), dataset, CPU)


def test_dry_run_writes_nothing(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    result = train_script(tiny_data, tmp_path / "o", "-n", "--gpus=2", "--batch-gpu=auto", "--cache=ram")
    assert result.exit_code == 0, result.output
    assert torch.cuda.is_available() or "2 processes share the CPU" in result.output
    for text in (
        '"batch_gpu": 4',
        '"widths": [\n',
        "GFLOP per image forward",
        "kimg per day",
        "iB per process at most",
    ):
        assert text in result.output
    assert not list(tmp_path.iterdir())


def test_number_is_recorded_and_a_resumed_run_keeps_it(tiny_data: Path, tmp_path: Path) -> None:
    resumed = ("--kimg=0.016", "--batch-gpu=auto", "--resume=latest", "--cache=none")
    for options in (("--batch-gpu=4",), resumed):
        result = train_script(tiny_data, tmp_path, *options)
        assert result.exit_code == 0, result.output
    (run_dir,) = tmp_path.iterdir()
    options_found = read_options(run_dir)
    assert options_found is not None and options_found.schedule.batch_gpu == 4
    assert json.loads((run_dir / "training_options.json").read_text())["data"]["cache"] == "none"
    other_batch = options_found.changed(schedule={"batch": 10, "batch_gpu": None})  # 4 does not divide it
    assert with_batch_gpu_of_newest(tmp_path, other_batch) is None


def test_a_run_without_a_number_leaves_it_to_the_search(tiny_data, tmp_path, monkeypatch) -> None:
    assert train_script(tiny_data, tmp_path).exit_code == 0
    (run_dir,) = tmp_path.iterdir()
    config = read_options(run_dir)
    assert config is not None and config.schedule.batch_gpu is None
    dataset = ImageDataset(tiny_data)
    assert initial_batch_gpu(config, dataset, 1, tmp_path) == (config, False)  # on the CPU there is no search
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert initial_batch_gpu(config, dataset, 1, tmp_path)[1]
