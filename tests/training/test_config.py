import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from dnnlib.dataclass_values import ConfigError, override, override_all
from train import main as train_main
from training.config import (
    AugmentConfig,
    DatasetSpec,
    GeneratorConfig,
    LossConfig,
    PerformanceConfig,
    RunConfig,
    ScheduleConfig,
)
from training.options import configure
from training.presets import PRESETS, preset
from training.schedule import Ramp


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (32, 32, [(8, 8), (16, 16), (32, 32)]),
        (48, 48, [(12, 12), (24, 24), (48, 48)]),
        (64, 96, [(8, 12), (16, 24), (32, 48), (64, 96)]),
        (28, 28, [(14, 14), (28, 28)]),
    ],
)
def test_stage_sizes(height: int, width: int, sizes: list[tuple[int, int]]) -> None:
    assert DatasetSpec(height, width, 3).stage_sizes == tuple(sizes)


MBSTD = override(preset("cifar", DatasetSpec(32, 32, 3)), "schedule.batch", "48")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DatasetSpec(2048, 2048, 3), "2048"),
        (lambda: DatasetSpec(97, 97, 3), "97"),
        (lambda: DatasetSpec(4, 4, 3), "4x4"),
        (lambda: DatasetSpec(32, 32, 4), "4"),
        (lambda: ScheduleConfig(batch=32, batch_gpu=5), "--batch-gpu"),
        (lambda: ScheduleConfig(batch=32).micro_batch(3), "--gpus"),
        (lambda: MBSTD.check(DatasetSpec(32, 32, 3)), "minibatch-std group 32"),
        (lambda: GeneratorConfig(widths=(64, 32), layers=(1, 1)).check(DatasetSpec(32, 32, 3)), "3 generator stages"),
        (lambda: GeneratorConfig(widths=(100,), layers=(1,), head_width=32), "heads"),
        (lambda: preset("imagenet", DatasetSpec(32, 32, 3)), "choose from auto, celeba64, church128, cifar"),
        (lambda: preset("stl10", DatasetSpec(32, 32, 3)), "--cfg=auto"),
        (lambda: AugmentConfig(pipe="everything"), "--augpipe"),
        (lambda: PerformanceConfig("fp8"), "--precision must be one of"),
        (lambda: PerformanceConfig(compile="0", cuda_graphs=True), "--compile=1"),
    ],
)
def test_refused_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


SIZES = {
    "stl10": 48, "celeba64": 64, "church128": 128, "paper256": 256, "hybrid256": 256, "hybrid512": 512, "hybrid1024": 1024,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_plain_values_and_back(name: str) -> None:
    size = SIZES.get(name, 32)
    config = preset(name, DatasetSpec(size, size, 3))
    config.check(DatasetSpec(size, size, 3))
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_demo_learns_classes_where_there_are_some() -> None:
    digits = DatasetSpec(32, 32, 3, label_dim=10)
    preset("demo", digits).check(digits)
    assert preset("demo", digits).loss.class_weight > 0
    for spec in (DatasetSpec(32, 32, 3), replace(digits, labels_are_vectors=True)):
        assert preset("demo", spec).loss.class_weight == 0


def test_missing_fields_get_their_default_and_unknown_ones_are_named() -> None:
    assert RunConfig.from_dict({"loss": {"r1_gamma": 3}}) == RunConfig(loss=LossConfig(r1_gamma=3.0))
    with pytest.raises(ConfigError, match="r1_gama"):
        RunConfig.from_dict({"loss": {"r1_gama": 3}})
    with pytest.raises(ConfigError, match=r"loss\.r1_gamma"):
        RunConfig.from_dict({"loss": {"r1_gamma": "three"}})


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("loss.r1_gamma", "0.1", 0.1),
        ("generator.widths", "256,64,32", (256, 64, 32)),
        ("generator.linformer", "true", True),
        ("generator.clamp", "none", None),
        ("schedule.batch_gpu", "4", 4),
        ("discriminator.architecture", "skip", "skip"),
    ],
)
def test_override(path: str, text: str, expected: object) -> None:
    group, name = path.split(".")
    assert getattr(getattr(override(RunConfig(), path, text), group), name) == expected


@pytest.mark.parametrize(
    "setting",
    [
        "loss.gama=1", "los=1", "loss=1", "loss.r1_gamma=much", "loss.r1_gamma.x=1", "generator.linformer=perhaps",
        "discriminator.architecture=vgg", "loss.r1_gamma=-1", "loss.r1_gamma=1e400", "loss.r1_gamma=1e308", "loss.pl_decay=5",
        "optimizer.g_lr=-0", "generator.z_dim=99999999999999999999", "generator.w_avg_beta=7", "generator.clamp=-1",
        "generator.layers=1,1,1000000000", "generator.group=x", "discriminator.channel_base=0",
        "discriminator.mapping_layers=-1", "data.workers=1000000", "schedule.kimg=0.0001", "schedule.tick_kimg=1e-320",
        "schedule.batch=1000000000000", "ema.rampup=-1", "discriminator.head_width=0",
    ],
)  # fmt: skip
def test_override_refuses(setting: str) -> None:
    path, text = setting.split("=")
    with pytest.raises(ConfigError, match=rf"{path.split('.')[0]}|--(kimg|tick) must be at least"):
        override(
            override(RunConfig(), "discriminator.kind", "vit") if "head_width" in path else RunConfig(), path, text
        )


def test_settings_that_need_each_other_are_set_together() -> None:
    settings = [("discriminator.kind", "vit"), ("discriminator.width", "80"), ("discriminator.head_width", "40")]
    for order in (settings, [settings[0], settings[2], settings[1]]):
        discriminator = override_all(RunConfig(), order).discriminator
        assert (discriminator.width, discriminator.head_width) == (80, 40)


def configured(*words: str) -> RunConfig:
    """What train.py makes of options."""
    options = train_main.make_context("train", ["--outdir=o", "--data=d", "--metrics=none", *words]).params
    return configure(options, "d", DatasetSpec(32, 32, 3), 1)


def test_probability_of_fixed_augmentation() -> None:
    """Given as a number, as a schedule, or by the preset."""
    assert configured("--aug=fixed", "--p=0.2").augment.p == 0.2
    burn_in = "--set=schedule.burn_in_kimg=10"
    assert configured("--aug=fixed", "--set=augment.p=0->0.5", burn_in).augment.p == Ramp(0.0, 0.5)
    of_preset = preset("cifar-r3", DatasetSpec(32, 32, 3)).augment
    assert configured("--cfg=cifar-r3", "--aug=fixed").augment == of_preset
    assert configured("--cfg=cifar-r3", "--p=0.1").augment.p == 0.1
    with pytest.raises(ConfigError, match=r"add --p=0\.2"):
        configured("--aug=fixed")


@pytest.mark.parametrize("gpus", [*range(1, 9), 24, 65])
def test_auto_suits_any_number_of_gpus(gpus: int) -> None:
    for side in (8, 32, 64, 256, 1024):
        spec = DatasetSpec(side, side, 3)
        config = preset("auto", spec, gpus)
        config.check(spec, gpus)
        assert config.schedule.batch <= max(64, gpus)


@pytest.mark.parametrize(("batch_gpu", "batch"), [(None, 72), (8, 72), (16, 96)])
def test_the_batch_that_an_error_proposes_is_accepted(batch_gpu: int | None, batch: int) -> None:
    spec = DatasetSpec(256, 256, 3)
    config = preset("paper256", spec).changed(schedule={"batch_gpu": batch_gpu})
    with pytest.raises(ConfigError, match=f"use --batch={batch}"):
        config.check(spec, 3)
    config.changed(schedule={"batch": batch}).check(spec, 3)


def test_auto_follows_the_published_rules() -> None:
    config = preset("auto", DatasetSpec(128, 128, 3), num_gpus=2)
    assert (config.schedule.batch, config.discriminator.mbstd_group) == (64, 4)
    assert config.loss.r1_gamma == pytest.approx(0.0002 * 128**2 / 64)
    assert config.ema.kimg == 20
    assert config.generator.widths == (1024, 256, 64, 64, 64)
    assert config.generator.layers == (1, 2, 1, 1, 1)
    large = {side: preset("auto", DatasetSpec(side, side, 3)) for side in (256, 512, 1024)}
    assert [config.discriminator.channel_base for config in large.values()] == [16384, 32768, 32768]
    assert [config.optimizer.g_lr for config in large.values()] == [0.0025, 0.0025, 0.002]


def test_arithmetic_of_training() -> None:
    """The numbers of the cifar preset: 137 GFLOP per image."""
    assert LossConfig(r1_gamma=0.01).training_flops(17.5, 8.04) == pytest.approx(137, abs=1)
    assert LossConfig(r1_gamma=0, pl_weight=2, pl_interval=4).training_flops(1.0, 0.0) == 4 + 6 / 8


def test_light_is_light() -> None:
    from training.plan.summary import forward_flops, meta_networks

    for side, limit in ((32, 12e9), (64, 40e9)):
        spec = DatasetSpec(side, side, 3, label_dim=10)
        config = preset("light", spec)
        assert config.loss.training_flops(*forward_flops(*meta_networks(config, spec), spec)) < limit
