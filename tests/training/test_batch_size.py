"""--batch-gpu=auto, and the steps that a dry run tries."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dnnlib.dataclass_values import ConfigError
from training.config import LossConfig, RunConfig
from training.data.cache import cache_decoded
from training.data.stream import ImageDataset
from training.plan import batch_size, probe
from training.plan import speed as speed_module
from training.plan.batch_size import (
    MemoryProbe,
    MemorySearch,
    initial_batch_gpu,
    micro_batches,
    search_batch_gpu,
    with_micro_batch,
)
from training.plan.probe import Probe
from training.plan.speed import speed
from training.run.folder import new_run, read_options, with_batch_gpu_of_newest

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30


@pytest.fixture
def dataset(tiny_data: Path) -> ImageDataset:
    return ImageDataset(tiny_data)


def changed(config: RunConfig, group: str, **values: Any) -> RunConfig:
    return replace(config, **{group: replace(getattr(config, group), **values)})


@pytest.mark.parametrize(
    ("batch", "group", "pl_weight", "processes", "expected"),
    [
        (32, 4, 0.0, 1, [32, 16, 8, 4]),  # fewer would be a smaller minibatch-std group
        (32, 4, 0.0, 2, [16, 8, 4]),
        (24, 4, 0.0, 1, [24, 12, 8, 4]),  # 6 is no multiple of the minibatch-std group
        (32, 32, 0.0, 4, [8]),  # the share of a process is smaller than the group
        (12, 3, 2.0, 1, [12, 6]),  # path length looks at half of them
    ],
)
def test_numbers_that_suit(
    tiny_config: RunConfig,
    dataset: ImageDataset,
    batch: int,
    group: int,
    pl_weight: float,
    processes: int,
    expected: list,
) -> None:
    config = changed(tiny_config, "schedule", batch=batch)
    config = changed(changed(config, "discriminator", mbstd_group=group), "loss", pl_weight=pl_weight)
    assert micro_batches(config, dataset, processes) == expected
    for count in expected:
        with_micro_batch(config, count).check(dataset.spec, processes)


def test_no_number_suits(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        micro_batches(tiny_config, dataset, 3)
    config = changed(changed(tiny_config, "schedule", batch=48), "discriminator", mbstd_group=32)
    with pytest.raises(ConfigError, match="minibatch-std group 32"):  # 24 and fewer would divide, but cut the group
        micro_batches(config, dataset, 1)


def search(config: RunConfig, dataset: ImageDataset, reserved_bytes: int = 0) -> MemorySearch:
    return MemorySearch(changed(config, "schedule", batch=16), dataset, CUDA, 1, reserved_bytes)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 10 GiB in which an image takes 1 GiB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 10 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    taken: list[int] = []

    class FakeProbe:
        def __init__(self, config: RunConfig, *given: Any) -> None:
            taken[:] = [config.schedule.micro_batch(1)]

        def step(self) -> None:
            if taken[0] > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batch_size, "Probe", FakeProbe)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: taken[0] * GIB)


@pytest.mark.usefixtures("gpu")
def test_largest_number_that_fits(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    lines = list[str]()
    assert search(tiny_config, dataset).largest(lines.append) == 8
    assert lines == ["--batch-gpu=auto: 8 images per forward pass fit into the memory of cuda:0"]
    assert search(tiny_config, dataset, 2 * GIB).largest(lines.append) == 4
    with pytest.raises(ValueError, match=r"not even 4 images per forward pass fit into the memory of cuda:0"):
        search(tiny_config, dataset, 8 * GIB).largest()


def test_on_the_cpu_all_at_once(tiny_config: RunConfig, dataset: ImageDataset, tmp_path: Path) -> None:
    config, trial = initial_batch_gpu(tiny_config, dataset, 2, tmp_path / "none")
    assert config == with_micro_batch(tiny_config, 4)
    assert trial == (MemoryProbe(2, is_continued=False) if torch.cuda.is_available() else None)
    assert MemorySearch(tiny_config, dataset, CPU, 2).largest() == 4


@pytest.mark.usefixtures("gpu")
def test_graphs_keep_memory_of_their_own(
    tiny_config: RunConfig, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.compilation.resolve_compile", lambda choice, device: (True, ""))
    config = changed(tiny_config, "performance", compile="1", cuda_graphs=True)
    assert search(config, dataset).largest() == 4
    assert search(changed(config, "performance", cuda_graphs=False), dataset).largest() == 8


@pytest.mark.usefixtures("gpu")
def test_a_run_goes_on_with_its_number_only_where_that_fits(
    tiny_config: RunConfig, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_micro_batch(changed(changed(tiny_config, "schedule", batch=16), "data", cache="none"), 8)
    assert search_batch_gpu(config, dataset, MemoryProbe(1, is_continued=True), CUDA) == config
    assert search_batch_gpu(config, dataset, MemoryProbe(1, is_continued=False), CUDA) == config
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 10 * GIB))  # little is left, but it runs
    assert search_batch_gpu(config, dataset, MemoryProbe(1, is_continued=True), CUDA) == config
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 10 * GIB))
    with pytest.raises(
        ValueError, match=r"has 16 images per forward pass, too many for .* cuda:0.*--batch-gpu=8 --force"
    ):
        search_batch_gpu(with_micro_batch(config, 16), dataset, MemoryProbe(1, is_continued=True), CUDA)


def test_that_of_a_run_to_go_on_with(
    tiny_config: RunConfig, dataset: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count in (2, 4):
        (new_run(tmp_path, with_micro_batch(tiny_config, count)) / "training-state-latest.pt").touch()
    new_run(tmp_path, with_micro_batch(tiny_config, 8))  # never saved
    assert with_batch_gpu_of_newest(tmp_path, tiny_config) == with_micro_batch(tiny_config, 4)
    assert initial_batch_gpu(tiny_config, dataset, 1, tmp_path) == (
        with_micro_batch(tiny_config, 4),
        MemoryProbe(1, True),
    )
    assert with_batch_gpu_of_newest(tmp_path, changed(tiny_config, "loss", r1_gamma=9.0)) is None


def test_probe_takes_steps_as_training_does(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    tried = Probe(with_micro_batch(tiny_config, 2), dataset, CPU, num_processes=2)
    assert [len(batch.images) for batch in tried.batches] == [2, 2]
    before = [p.clone() for p in tried.state.G.parameters()]
    assert list(tried.step()) == ["G_main", "G_pl", "D_main", "D_r1"]
    assert any(not torch.equal(p, q) for p, q in zip(before, tried.state.G.parameters(), strict=True))
    assert all(p.isfinite().all() for p in tried.state.D.parameters())


def test_time_of_an_iteration(tiny_config: RunConfig, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Probe(tiny_config, dataset, CPU)
    monkeypatch.setattr(tried, "step", lambda: {"G_main": 1.0, "G_pl": 3.0, "D_main": 2.0, "D_r1": 4.0})
    assert tried.iteration_sec(10) == (1.0 + 3.0 / 2 + 2.0 + 4.0 / 2, 10)
    monkeypatch.setattr(probe, "CPU_SEC", 0.0)
    assert tried.iteration_sec(10)[1] == 1


def test_arithmetic_of_training() -> None:
    """The numbers of the cifar preset: 137 GFLOP for each image."""
    assert LossConfig(r1_gamma=0.01).training_flops(17.5, 8.04) == pytest.approx(137, abs=1)
    assert LossConfig(r1_gamma=0, pl_weight=2, pl_interval=4).training_flops(1.0, 0.0) == 4 + 6 / 8


def test_speed_is_tried_where_that_is_quick(
    tiny_config: RunConfig, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = speed(tiny_config, dataset, CPU)
    assert "kimg per day: " in text and "per step of 8 images on cpu, mean of 10 steps" in text
    memory = re.search(
        r"\nMemory: +([\d.]+) ([MG]iB) per process .* on cpu in fp32 with 8 images per forward pass$", text
    )
    assert memory and 0.05 < float(memory[1]) / {"MiB": 1024, "GiB": 1}[memory[2]] < 8
    monkeypatch.setattr(speed_module, "cpu_flops", lambda: 1e6)
    text = speed(tiny_config, dataset, CPU)
    assert "estimated" in text and text.endswith("not measured, as no step was tried")


def test_memory_on_a_gpu_is_what_the_steps_held_there(
    tiny_config: RunConfig, dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what --batch-gpu=auto had held before, in steps that were too large."""
    held = {CUDA: 9 * GIB}

    class Steps:
        def __init__(self, *arguments: object) -> None:
            pass

        def iteration_sec(self, steps: int) -> tuple[float, int]:
            held[CUDA] = max(held[CUDA], 3 * GIB)
            return 0.5, steps

    monkeypatch.setattr(speed_module, "Probe", Steps)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update({device: GIB}))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", held.__getitem__)
    text = speed(changed(with_micro_batch(tiny_config, 4), "performance", precision="fp32"), dataset, CUDA)
    assert "0.500 s per step of 8 images on cuda:0" in text
    assert "3.0 GiB per process at most" in text and "in fp32 with 4 images per forward pass" in text


def arguments(data: Path, outdir: Path, *others: str) -> list[str]:
    return [
        f"--data={data}", f"--outdir={outdir}", "--cfg=demo", "--g_dict=16,16", "--num_layers=1,1", "--batch=8",
        "--workers=0", "--set=discriminator.channel_max=8", "--set=discriminator.mbstd_group=4", "--metrics=none", *others,
    ]  # fmt: skip


def test_dry_run_writes_nothing(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    result = CliRunner().invoke(
        train.main, arguments(tiny_data, tmp_path / "o", "-n", "--batch-gpu=auto", "--cache=ram")
    )
    assert result.exit_code == 0, result.output
    assert (
        '"batch_gpu": 8' in result.output
        and "kimg per day" in result.output
        and "iB per process at most" in result.output
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_other_words_are_refused(tiny_data: Path, tmp_path: Path, value: str) -> None:
    result = CliRunner().invoke(train.main, arguments(tiny_data, tmp_path / "o", f"--batch-gpu={value}"))
    assert result.exit_code == 2 and f"'{value}' is neither a number from 1 on nor auto" in result.output


def test_number_is_recorded_and_a_resumed_run_keeps_it(tiny_data: Path, tmp_path: Path) -> None:
    first = arguments(tiny_data, tmp_path, "--kimg=0.008", "--batch-gpu=4")
    second = arguments(tiny_data, tmp_path, "--kimg=0.016", "--batch-gpu=auto", "--resume=latest", "--cache=none")
    for options in (first, second):
        result = CliRunner().invoke(train.main, options)
        assert result.exit_code == 0, result.output
    (run_dir,) = tmp_path.iterdir()
    options_found = read_options(run_dir)
    assert options_found is not None and options_found.schedule.batch_gpu == 4
    assert json.loads((run_dir / "training_options.json").read_text())["data"]["cache"] == "none"


def test_probe_uses_kept_images(tiny_config: RunConfig, dataset: ImageDataset) -> None:
    plain = Probe(tiny_config, dataset, CPU).batches[0].images
    cache_decoded(dataset, "gpu", CPU)
    assert torch.equal(Probe(tiny_config, dataset, CPU).batches[0].images, plain)
