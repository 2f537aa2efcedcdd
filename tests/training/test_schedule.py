"""Settings given as start->end: read, written, in effect at the right images, and the same after a restart."""

import json

import pytest
from tiny_runs import CPU, train_in_parts

from dnnlib.dataclass_values import ConfigError, override
from training.config import DatasetSpec, RunConfig
from training.run_report.run_folder import read_rows
from training.schedule import Ramp, schedule_table
from training.state import TrainState

SPEC = DatasetSpec(16, 16, 3)
CHANGING = {
    "optimizer.g_lr": "0.002->0.0005",
    "optimizer.d_lr": "0.001->0.003",
    "optimizer.beta2": "0.9->0.99",
    "loss.r1_gamma": "2->0.2",
    "ema.kimg": "0->0.05",
    "augment.p": "0->0.5",
}


def changing(config: RunConfig) -> RunConfig:
    for name, text in {**CHANGING, "augment.mode": "fixed", "schedule.burn_in_kimg": "0.04"}.items():
        config = override(config, name, text)
    return config


def test_a_ramp_is_half_a_cosine_and_then_constant() -> None:
    ramp = Ramp.from_text("0.05->0.005")
    values = [ramp.at(nimg, 20_000) for nimg in (0, 5_000, 10_000, 20_000, 90_000)]
    assert values == pytest.approx([0.05, 0.005 + 0.045 * (1 + 0.5**0.5) / 2, 0.0275, 0.005, 0.005])


def test_text_to_settings_to_json_and_back(tiny_config: RunConfig) -> None:
    config = changing(tiny_config)
    assert config.optimizer.g_lr == Ramp(0.002, 0.0005) and config.augment.p == Ramp(0.0, 0.5)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["optimizer"] == {"g_lr": "0.002->0.0005", "d_lr": "0.001->0.003", "beta1": 0.0,
                                  "beta2": "0.9->0.99", "eps": 1e-8}  # fmt: skip
    assert RunConfig.from_dict(plain) == config
    config.check(SPEC)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("optimizer.g_lr", "0.002-", "in quotes, got '0.002-'"),  # a shell takes > for a redirection
        ("optimizer.g_lr", "0.002->nan", "in quotes"),
        ("optimizer.g_lr", "0.002->0", "g_lr and d_lr must be positive"),
        ("optimizer.beta2", "0.9->1", "beta2 must be at least 0 and below 1"),
        ("loss.r1_gamma", "1->-1", "loss.r1_gamma must be 0 or more"),
        ("augment.p", "0->2", "must lie in 0..1"),
        ("schedule.kimg", "1->2", "must be of type float"),
    ],
)
def test_ramps_that_cannot_be_used(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(RunConfig(), name, text)


def test_a_ramp_needs_a_burn_in_and_a_fixed_augmentation(tiny_config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"loss.r1_gamma change while training: .* schedule.burn_in_kimg"):
        override(tiny_config, "loss.r1_gamma", "2->1").check(SPEC)
    with pytest.raises(ConfigError, match=r"for augment.mode=fixed; with ada: --set augment.p=0"):
        override(changing(tiny_config), "augment.mode", "ada").check(SPEC)


@pytest.mark.parametrize("kind", ["logistic", "relativistic"])
def test_a_run_resumed_in_the_burn_in_equals_the_uninterrupted_one(tiny_config, tiny_data, tmp_path, kind) -> None:
    config = changing(override(tiny_config, "loss.kind", kind))
    config = config.changed(schedule={"tick_kimg": 0.008})
    for run in train_in_parts(config, tiny_data, tmp_path, 0.048):
        rows = read_rows(run.run_dir / "stats.jsonl")
        for name, text in CHANGING.items():
            ramp = Ramp.from_text(text)
            expected = [ramp.at(row["cur_nimg"], 40) for row in rows]
            assert [row[f"Schedule/{name}"]["mean"] for row in rows] == pytest.approx(expected)
        p = [row["Progress/augment"]["mean"] for row in rows]
        assert p == pytest.approx([row["Schedule/augment.p"]["mean"] for row in rows])


def test_steps_use_the_values_of_their_images(tiny_config: RunConfig) -> None:
    state = TrainState(changing(tiny_config), SPEC, CPU)
    for nimg, done in ((0, 0.0), (20, 0.5), (40, 1.0)):
        state.cur_nimg = nimg
        state.apply_schedules()
        (g,), (d,) = state.g.optimizer.param_groups, state.d.optimizer.param_groups
        ratio = 2 / 3  # penalties every second batch
        assert g["lr"] == pytest.approx((0.002 - 0.0015 * done) * ratio)
        assert d["lr"] == pytest.approx((0.001 + 0.002 * done) * ratio)
        assert d["betas"] == (0.0, pytest.approx((0.9 + 0.09 * done) ** ratio))
        assert state.ada.p_clamped.item() == pytest.approx(0.5 * done)


def test_the_table_of_a_dry_run(tiny_config: RunConfig) -> None:
    assert schedule_table(tiny_config) == ""
    head, *rows = schedule_table(changing(tiny_config)).splitlines()
    assert head.split() == ["schedule", "0", "kimg", "0.01", "kimg", "0.02", "kimg", "0.03", "kimg", "0.04", "kimg"]
    assert [row.split()[0] for row in rows] == ["loss.r1_gamma", "augment.p", *list(CHANGING)[:3], "ema.kimg"]
    assert rows[1].split()[1:] == ["0", "0.07322", "0.25", "0.4268", "0.5"]
