"""Named configurations: the published results, `auto` for any images, and the demo that runs on two CPU cores."""

from collections.abc import Callable
from dataclasses import replace

from dnnlib.dataclass_values import ConfigError, require
from training.config import (
    MAX_ATTENTION_PX,
    AugmentConfig,
    DataConfig,
    DatasetSpec,
    DiscriminatorConfig,
    EmaConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
)
from training.registry import entry
from training.schedule import Ramp

Preset = Callable[[DatasetSpec, int], RunConfig]  # (images, processes) -> configuration

CIFAR = RunConfig(
    generator=GeneratorConfig(widths=(1024, 512, 512), layers=(1, 3, 3)),
    discriminator=DiscriminatorConfig(architecture="orig", channel_base=32768, mbstd_group=32),
    loss=LossConfig(r1_gamma=0.01, mixing_prob=0.0),
    optimizer=OptimizerConfig(g_lr=0.0025, d_lr=0.0025),
    ema=EmaConfig(kimg=500.0, rampup=0.05),
    schedule=ScheduleConfig(kimg=100_000.0, batch=32),
)


def demo(spec: DatasetSpec, num_gpus: int) -> RunConfig:
    """Small networks and batches, which learn the built-in digits in minutes on two CPU cores.

    z is wider than w so that images of a class differ; digits have no random details, so there is no noise.
    """
    return RunConfig(
        generator=GeneratorConfig(
            widths=(128, 64, 32),
            layers=(1, 1, 1),
            linformer=True,
            linformer_tokens=64,
            z_dim=192,
            w_dim=128,
            clamp=None,
            noise=False,
        ),
        discriminator=DiscriminatorConfig(
            architecture="orig", channel_base=1024, channel_max=64, mbstd_group=8, mapping_layers=2, clamp=None
        ),
        loss=LossConfig(r1_gamma=10.0, mixing_prob=0.0, class_weight=0.07 if spec.has_classes else 0.0),
        augment=AugmentConfig(mode="noaug"),
        optimizer=OptimizerConfig(g_lr=Ramp(0.0035, 0.001), d_lr=Ramp(0.0035, 0.001)),
        ema=EmaConfig(kimg=2.0, rampup=0.1),
        schedule=ScheduleConfig(kimg=20.0, burn_in_kimg=20.0, batch=8, tick_kimg=2.0, snap_ticks=5),
    )


def cifar_r3(spec: DatasetSpec, num_gpus: int) -> RunConfig:
    """The generator of `cifar` with R3GAN's recipe for CIFAR-10 (arXiv 2501.05441): classes, flips, schedules over 20 Mimg.

    Its learning rates are for plain weights; equalised ones keep those of `cifar`, and fall to a quarter as there.
    """
    return RunConfig(
        data=DataConfig(cond=True, mirror=True),
        generator=CIFAR.generator,
        discriminator=replace(CIFAR.discriminator, mbstd_group=1),
        loss=entry("loss", "relativistic").config(r1_gamma=Ramp(0.05, 0.005)),
        augment=AugmentConfig(mode="fixed", pipe="r3", p=Ramp(0.0, 0.55)),
        optimizer=OptimizerConfig(g_lr=Ramp(0.0025, 0.000625), d_lr=Ramp(0.0025, 0.000625), beta2=Ramp(0.9, 0.99)),
        ema=EmaConfig(kimg=Ramp(0.0, 5000.0), rampup=None),
        schedule=ScheduleConfig(kimg=250_000.0, burn_in_kimg=20_000.0, batch=max(512 // num_gpus, 1) * num_gpus),
    )


def light(spec: DatasetSpec, num_gpus: int) -> RunConfig:
    """Networks of like cost for Colab's T4 and for CPUs: about 4 GFLOP per training image at 32 px."""
    side, num_stages = max(spec.height, spec.width), len(spec.stage_sizes)
    widths = (256, 128, 64, 64, *[32] * num_stages)[:num_stages]
    return RunConfig(
        generator=GeneratorConfig(
            widths=widths, layers=(1,) * num_stages, linformer=True, z_dim=256, w_dim=256, clamp=None
        ),
        discriminator=DiscriminatorConfig(
            architecture="resnet", channel_base=64 * side, channel_max=256, mbstd_group=8, mapping_layers=2
        ),
        loss=LossConfig(r1_gamma=0.05 * (side / 32) ** 2, mixing_prob=0.0),
        augment=AugmentConfig(max_p=0.7),
        optimizer=OptimizerConfig(g_lr=Ramp(0.005, 0.001), d_lr=Ramp(0.005, 0.001)),
        ema=EmaConfig(kimg=20.0, rampup=0.25),
        schedule=ScheduleConfig(kimg=2000.0, burn_in_kimg=12.0, batch=16 * num_gpus),
    )  # at a constant 0.005 training breaks down after 8 kimg; see docs/experiments.md


def auto_generator(spec: DatasetSpec) -> GeneratorConfig:
    """Widths 1024, 256, 64, 64, ... and layers 1, 2, 1, 1, ... for the stages of the images; hybrid above 256 px."""
    if max(spec.height, spec.width) > MAX_ATTENTION_PX:
        return hybrid_generator(spec)
    num_stages = len(spec.stage_sizes)
    widths = (1024, 256, *[64] * num_stages)[:num_stages]
    layers = (1, 2, *[1] * num_stages)[:num_stages]
    return GeneratorConfig(widths=widths, layers=layers, linformer=True, linformer_lr_mult=16.0)


def hybrid_generator(spec: DatasetSpec) -> GeneratorConfig:
    """Attention up to 32 px with widths 512, 256, 256 and layers 1, 2, 2, as many as there are stages; convolutions above."""
    config: GeneratorConfig = entry("generator", "hybrid").config().fitted(spec)
    return config


def auto(spec: DatasetSpec, num_gpus: int) -> RunConfig:
    """Settings deduced from the image size and the number of processes.

    The rules are those of StyleGAN2-ADA's `auto`, without path length.
    """
    side = max(spec.height, spec.width)
    batch_gpu = max(min(64 // num_gpus, 4096 // side, 32), 1)
    group = min(batch_gpu, 4)
    batch = num_gpus * (batch_gpu - batch_gpu % group)
    generator, lr = auto_generator(spec), 0.002 if side >= 1024 else 0.0025
    return RunConfig(
        generator=generator,
        discriminator=DiscriminatorConfig(
            architecture="resnet",
            channel_base=32768 if side >= 512 else 16384,
            mbstd_group=group,
        ),
        loss=LossConfig(r1_gamma=0.0002 * side**2 / batch),
        optimizer=OptimizerConfig(g_lr=lr, d_lr=lr),
        ema=EmaConfig(kimg=batch * 10 / 32, rampup=0.05),
        schedule=ScheduleConfig(kimg=25_000.0, batch=batch),
    )


def for_size(name: str, size: int, generator: GeneratorConfig | None = None) -> Preset:
    """The training settings of `auto` for images of one size.

    With a published generator, whose training settings were not published; None = a hybrid one, `size` is the longer side.
    """

    def build(spec: DatasetSpec, num_gpus: int) -> RunConfig:
        sides = (spec.height, spec.width) if generator else (max(spec.height, spec.width),)
        what = f"of {size}x{size} px" if generator else f"with a longer side of {size} px"
        kind = "" if generator else " --set generator.kind=hybrid"
        require(
            set(sides) == {size},
            f"--cfg={name} is for images {what}, these have {spec.width}x{spec.height}: use --cfg=auto{kind}, or pack them "
            f"with dataset_tool.py --width={size} --height={size}",
        )
        return replace(auto(spec, num_gpus), generator=generator or hybrid_generator(spec))

    return build


def paper256(spec: DatasetSpec, num_gpus: int) -> RunConfig:
    """The settings of StyleGAN2-ADA's paper256 with the generator of `auto`."""
    return RunConfig(
        generator=replace(auto_generator(spec), mapping_layers=8),
        discriminator=DiscriminatorConfig(architecture="resnet", channel_base=16384, mbstd_group=8),
        loss=LossConfig(r1_gamma=1.0, pl_weight=2.0, mixing_prob=0.9),
        ema=EmaConfig(kimg=20.0, rampup=None),
        schedule=ScheduleConfig(kimg=25_000.0, batch=64),
    )


PRESETS: dict[str, Preset] = {
    "auto": auto,
    "demo": demo,
    "cifar": lambda spec, num_gpus: CIFAR,
    "cifar-cond": lambda spec, num_gpus: replace(CIFAR, data=DataConfig(cond=True)),
    "cifar-r3": cifar_r3,
    "light": light,
    "stl10": for_size("stl10", 48, GeneratorConfig((1024, 256, 64), (1, 3, 3))),
    "celeba64": for_size("celeba64", 64, GeneratorConfig((1024, 256, 64, 64), (1, 2, 1, 1), linformer=True)),
    "church128": for_size("church128", 128, GeneratorConfig((1024, 256, 64, 64, 64), (1, 2, 1, 1, 1), linformer=True)),
    "paper256": paper256,
    **{f"hybrid{size}": for_size(f"hybrid{size}", size) for size in (256, 512, 1024)},
}
ALIASES = {"cifar10": "cifar"}
PERFORMANCE = {"precision": "auto", "compile": "auto", "cuda_graphs": None}  # of train.py, unless options say otherwise
LINFORMER_MAX_P = 0.7  # bound of the augmentation probability


def preset(name: str, spec: DatasetSpec, num_gpus: int = 1) -> RunConfig:
    """The configuration of this name for these images; raises ConfigError naming the known ones."""
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        raise ConfigError(f"there is no preset '{name}' (--cfg); choose from {', '.join(sorted(PRESETS))}")
    return replace(PRESETS[name](spec, num_gpus), preset=name)


def with_bounded_p(config: RunConfig) -> RunConfig:
    """With the bound of the augmentation probability that holds with Linformer."""
    if not getattr(config.generator, "linformer", False):
        return config
    return config.changed(augment={"max_p": LINFORMER_MAX_P})
