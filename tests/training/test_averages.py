"""Several averages of the generator at once: trained, saved, resumed, chosen by their half-life, measured."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny_runs import CPU, train, train_in_parts

import calc_metrics
import generate
from dnnlib.dataclass_values import ConfigError, override
from metrics.results import read_rows
from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import export_snapshot, load_generator, load_networks, read_snapshot
from training.checkpoint.state_file import find_state, restore
from training.config import DatasetSpec, EmaConfig, RunConfig
from training.ema import ema_beta, update_ema
from training.state import TrainState

SPEC = DatasetSpec(16, 16, 3)
METRIC = "proxy_fd_randconv_v1"


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.flatten() for p in network.parameters()])


def test_settings() -> None:
    one, several = (override(RunConfig(), "ema.kimg", text) for text in ("50", "50,500,5e3"))
    assert one.ema == EmaConfig(kimg=50.0) and list(one.ema.averages) == ["G_ema"]
    assert several.ema.averages == {"G_ema": 50.0, "G_ema_500": 500.0, "G_ema_5000": 5000.0}
    plain = json.loads(json.dumps(several.to_dict()))
    assert plain["ema"]["kimg"] == [50.0, 500.0, 5000.0] and RunConfig.from_dict(plain) == several
    for text in ("50,50", ",", "50,-1"):
        with pytest.raises(ConfigError, match=r"ema.kimg must"):
            override(RunConfig(), "ema.kimg", text)


def test_ramp_up_shortens_the_half_life_of_a_young_run() -> None:
    assert ema_beta(32, 10**9, 10_000, rampup=None) ** (10_000 / 32) == pytest.approx(0.5)
    assert ema_beta(32, 0, 10_000, rampup=0.05) == 0.0
    assert ema_beta(32, 64_000, 10_000, rampup=0.05) == pytest.approx(0.5 ** (32 / 3200))
    assert ema_beta(32, 10**9, 10_000, rampup=0.05) == ema_beta(32, 10**9, 10_000, rampup=None)


def test_parameters_are_averaged_and_buffers_copied() -> None:
    network = torch.nn.BatchNorm1d(3)
    average = copy.deepcopy(network)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(7.0)
    update_ema(average, network, beta=0.75)
    torch.testing.assert_close(average.weight, torch.full([3], 1.5))
    assert torch.equal(average.running_mean, network.running_mean)


def test_each_average_follows_its_half_life(tiny_config: RunConfig) -> None:
    state = TrainState(replace(tiny_config, ema=EmaConfig(kimg=(0.008, 0.08), rampup=None)), SPEC, CPU)
    start = weights(state.G).clone()
    with torch.no_grad():
        for p in state.G.parameters():
            p += 1
    state.advance()
    for name, half_life in (("G_ema", 8), ("G_ema_0.08", 80)):
        moved = 1 - ema_beta(8, 0, half_life, None)
        difference = weights(state.averages[name]) - start
        torch.testing.assert_close(difference, torch.full_like(start, moved), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def several() -> EmaConfig:
    return EmaConfig(kimg=(0.02, 0.2), rampup=None)


def test_a_single_average_is_saved_as_ever(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_config, tiny_data, tmp_path / "run", 0.008)
    snapshot = torch.load(tmp_path / "run" / "network-snapshot-000000.pkl", weights_only=True)
    assert list(snapshot) == ["format", "version", "config", "dataset", "cur_nimg", "content_hash", "G", "D", "G_ema"]
    assert snapshot["config"]["ema"]["kimg"] == 0.02


def test_resume_and_choice(tiny_config: RunConfig, several: EmaConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = replace(tiny_config, ema=several)
    whole, _ = train_in_parts(config, tiny_data, tmp_path)
    path = tmp_path / "whole" / "network-snapshot-000000.pkl"
    exported = tmp_path / "exported.safetensors"
    export_snapshot(path, exported)
    for name, half_life in (("G_ema", 0.02), ("G_ema_0.2", 0.2)):
        for file in (path, exported):
            assert torch.equal(weights(load_generator(file, ema=half_life)), weights(whole.state.averages[name]))
    assert torch.equal(weights(load_generator(path)), weights(whole.state.G_ema))
    assert not torch.equal(weights(whole.state.G_ema), weights(whole.state.averages["G_ema_0.2"]))
    with pytest.raises(CheckpointError, match=r"no such average; the half-lives of its averages are 0.02, 0.2 kimg"):
        load_generator(path, ema=5)


def test_an_average_that_a_file_lacks_begins_as_the_first(tiny_config, several, tiny_data, tmp_path) -> None:
    """With --resume=latest --force, and in fine-tuning."""
    single = train(tiny_config, tiny_data, tmp_path / "run", 0.016)
    assert several.sources(single.config.ema) == {"G_ema": "G_ema", "G_ema_0.2": "G_ema"}
    state = TrainState(replace(tiny_config, ema=several), SPEC, CPU)
    load_networks(tmp_path / "run" / "network-snapshot-000000.pkl", state)
    assert torch.equal(weights(state.averages["G_ema_0.2"]), weights(single.state.G_ema))
    state = TrainState(replace(tiny_config, ema=several), SPEC, CPU)
    state.load_state_dict(single.state.state_dict(), single.config.ema)
    assert torch.equal(weights(state.averages["G_ema_0.2"]), weights(single.state.G_ema))


def test_an_average_continues_the_one_of_its_half_life(tiny_config, several, tiny_data, tmp_path) -> None:
    saved = train(replace(tiny_config, ema=several), tiny_data, tmp_path / "run", 0.016)
    longer = weights(saved.state.averages["G_ema_0.2"])
    turned = replace(tiny_config, ema=EmaConfig(kimg=(0.2, 0.02), rampup=None))
    state = TrainState(turned, SPEC, CPU)
    load_networks(tmp_path / "run" / "network-snapshot-000000.pkl", state)
    assert torch.equal(weights(state.G_ema), longer)
    state = TrainState(turned, SPEC, CPU)
    restore(state, find_state(tmp_path / "run"), tmp_path)
    assert torch.equal(weights(state.G_ema), longer)
    assert torch.equal(weights(state.averages["G_ema_0.02"]), weights(saved.state.G_ema))


def test_the_average_becomes_the_trained_weights(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = replace(tiny_config, ema=EmaConfig(kimg=0.02, reload_kimg=0.02))
    before = train(config, tiny_data, tmp_path / "run", 0.016)
    assert not torch.equal(weights(before.state.G), weights(before.state.G_ema))
    after = train(config, tiny_data, tmp_path / "run", 0.024)
    assert torch.equal(weights(after.state.G), weights(after.state.G_ema))
    later = train(config, tiny_data, tmp_path / "run", 0.032)
    assert not torch.equal(weights(later.state.G), weights(later.state.G_ema))


@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_each_average_is_measured_and_the_scripts_choose_one(
    tiny_config: RunConfig, several: EmaConfig, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    config = replace(tiny_config, ema=several, schedule=replace(tiny_config.schedule, metrics=(METRIC,)))
    run_dir = tmp_path / "run"
    train(config, tiny_data, run_dir, 0.016)
    train(config, tiny_data, run_dir, 0.016)  # nothing is missing
    (first,), (second,) = read_rows(run_dir, METRIC), read_rows(run_dir / "ema-0.2", METRIC)
    assert first["value"] != second["value"] and first["seed"] == second["seed"]
    assert (run_dir / f"network-snapshot-best-{METRIC}.pkl").is_file()

    network = f"--network={run_dir}/network-snapshot-000000.pkl"
    options = [network, "--ema=0.2", f"--data={tiny_data}", f"--metrics={METRIC}", f"--seed={first['seed']}"]
    result = CliRunner().invoke(calc_metrics.main, [*options, "--gpus=0"])
    assert result.exit_code == 0, result.output
    assert [row["value"] for row in read_rows(run_dir / "ema-0.2", METRIC)] == pytest.approx([second["value"]] * 2)
    assert len(read_rows(run_dir, METRIC)) == 1
    options = [network, f"--data={tiny_data}", f"--metrics={METRIC}", "--gpus=0"]
    for chosen in ("--ema=0.02", "--ema=0.2"):  # the first average has no folder of its own
        result = CliRunner().invoke(calc_metrics.main, [*options, chosen, f"--outdir={tmp_path / 'results'}"])
        assert result.exit_code == 0, result.output
    assert len(read_rows(tmp_path / "results", METRIC)) == len(read_rows(tmp_path / "results/ema-0.2", METRIC)) == 1
    result = CliRunner().invoke(calc_metrics.main, [*options, "--ema=5"])
    assert result.exit_code and "half-lives of its averages are 0.02, 0.2 kimg" in result.output

    for command, file in (
        (["--seeds=1"], "seed0001.png"),
        (["mix", "--rows=1", "--cols=2"], "mix.png"),
        (["attention", "--seeds=1"], "attention0001.png"),
    ):
        images = []
        for name, chosen in (("first", []), ("named", ["--ema=0.02"]), ("other", ["--ema=0.2"])):
            result = CliRunner().invoke(generate.main, [*command, network, *chosen, f"--outdir={tmp_path / name}"])
            assert result.exit_code == 0, result.output
            images.append((tmp_path / name / file).read_bytes())
        assert images[0] == images[1] != images[2], command
    assert read_snapshot(run_dir / "network-snapshot-000000.pkl")[0].ema == several
