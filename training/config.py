"""Every number of a run, as frozen dataclasses of plain values; imports no torch."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Self

from dnnlib.dataclass_values import build, require, require_range, to_plain
from training.registry import MAX_LAYERS, AnyDiscriminator, AnyGenerator, AnyLoss, register
from training.schedule import Scheduled, highest, lowest, ramps

MAX_SIDE_PX = 1024
MAX_KIMG = 1e9
MAX_BATCH = 2**24
MAX_WORKERS = 1000
MAX_ATTENTION_PX = 256  # above, a Linformer projection has 256 x tokens parameters per layer (67 M at 512 px)
MIN_START_PX = 8  # the first stage is the smallest size reached by halving whose shorter side is not below this

ARCHITECTURES = ("orig", "resnet", "skip")
AUGMENT_MODES = ("noaug", "ada", "fixed")
CACHE_MODES = ("auto", "gpu", "ram", "none")
PRECISIONS = ("auto", "bf16", "fp16", "fp32", "tf32")
COMPILE_CHOICES = ("auto", "0", "1")
AUGMENT_PIPES = (
    "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "r3",
)


@dataclass(frozen=True)
class DatasetSpec:
    """What the networks must know of a data set."""

    height: int                          # px
    width: int                           # px
    channels: int                        # 1 = grey, 3 = RGB
    label_dim: int = 0                   # length of a label vector; 0 = unconditional
    class_names: tuple[str, ...] = ()    # () = the data set names none
    labels_are_vectors: bool = False     # any vectors, not one-hot ones of classes

    def __post_init__(self) -> None:
        require(self.channels in (1, 3), f"images have {self.channels} channels; only grey (1) and RGB (3) are supported")
        require(
            max(self.height, self.width) <= MAX_SIDE_PX,
            f"images of {self.width}x{self.height} px are too large: the limit is {MAX_SIDE_PX} px per side. Pack them "
            f"smaller with dataset_tool.py",
        )
        require(
            min(self.stage_sizes[0]) <= 2 * MIN_START_PX,
            f"images of {self.width}x{self.height} px cannot be halved evenly down to about {MIN_START_PX} px: the start "
            f"would be {self.stage_sizes[0][1]}x{self.stage_sizes[0][0]}. Use sides divisible by a higher power of two",
        )
        require(min(self.height, self.width) >= MIN_START_PX, f"images of {self.width}x{self.height} px are too small: "
                f"the shorter side must be at least {MIN_START_PX} px")

    @property
    def has_classes(self) -> bool:
        """Whether the labels are classes, not missing and not any vectors."""
        return self.label_dim > 0 and not self.labels_are_vectors

    @property
    def stage_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of every generator stage, smallest first: 48x48 gives 12, 24, 48; 32x32 gives 8, 16, 32."""
        sizes = [(self.height, self.width)]
        while all(side % 2 == 0 and side // 2 >= MIN_START_PX for side in sizes[0]):
            sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
        return tuple(sizes)


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are read."""

    path: str = ""                       # zip or folder in the dataset format
    cond: bool = False                   # train on the labels
    mirror: bool = False                 # add every image flipped left to right
    subset: int | None = None            # use only so many images; None = all
    workers: int = 1                     # loader processes; 0 = read in the training process
    cache: str = "auto"                  # where decoded images are kept; the images are the same

    def __post_init__(self) -> None:
        require(self.cache in CACHE_MODES, f"--cache must be one of {', '.join(CACHE_MODES)}; got '{self.cache}'")
        require_range("data", self, "workers", 0, MAX_WORKERS)


@dataclass(frozen=True)
class GeneratorConfig(AnyGenerator):
    """Mapping network and synthesis transformer (paper, section 3)."""

    kind: str = field(default="styleformer", kw_only=True)
    widths: tuple[int, ...] = (1024, 512, 512)   # token width of each stage (--g_dict)
    layers: tuple[int, ...] = (1, 3, 3)          # encoder layers of each stage (--num_layers)
    head_width: int = 32                         # channels of an attention head (--depth)
    minimum_heads: int = 1                       # heads where the width allows fewer (--minimum_head)
    linformer: bool = False                      # project keys and values to fewer tokens in large stages
    linformer_tokens: int = 256                  # tokens after the projection
    linformer_from_px: int = 32                  # stages of at least this many squared px are projected
    linformer_lr_mult: float | None = None       # a projection learns at g_lr x this / the tokens it sums; None = at g_lr
    clamp: float | None = 256.0                  # bound of every layer's output; None = unbounded

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.widths) == len(self.layers) and len(self.widths) > 0,
                f"--g_dict {self.widths} and --num_layers {self.layers} must name one value a stage, equally many")
        require_range("generator", self, "layers", 1, MAX_LAYERS)
        require_range("generator", self, "widths head_width minimum_heads linformer_tokens", 1)
        require_range("generator", self, "linformer_from_px linformer_lr_mult", 0)
        require(self.clamp is None or self.clamp > 0, f"generator.clamp must be positive or none, got {self.clamp}")
        for width in self.widths:
            require(width % self.num_heads(width) == 0,
                    f"generator width {width} is not a multiple of its {self.num_heads(width)} heads; change --g_dict, "
                    f"--depth or --minimum_head")

    def num_heads(self, width: int) -> int:
        return max(self.minimum_heads, width // self.head_width)

    def is_projected(self, num_tokens: int) -> bool:
        """Whether a stage of so many tokens uses the Linformer projection."""
        return self.linformer and num_tokens >= self.linformer_from_px**2

    def weight_settings(self) -> dict[str, object]:
        names = ["widths", "layers", "head_width", "minimum_heads", "linformer", "z_dim", "w_dim", "mapping_layers"]
        names += ["mapping_lr_mult"]  # also a factor on these weights
        names += ["linformer_tokens", "linformer_from_px"] if self.linformer else []
        return {name: getattr(self, name) for name in names}

    def check(self, spec: DatasetSpec) -> None:
        """Raise ConfigError unless there is one width a stage of these images."""
        require(max(spec.height, spec.width) <= MAX_ATTENTION_PX,
                f"images of {spec.width}x{spec.height} px are too large for attention at full size, the limit is "
                f"{MAX_ATTENTION_PX} px: use --cfg=auto, which has convolutions above 32 px (--set generator.kind=hybrid)")
        sizes = ", ".join(f"{width}x{height}" for height, width in spec.stage_sizes)
        require(len(self.widths) == len(spec.stage_sizes),
                f"images of {spec.width}x{spec.height} px make {len(spec.stage_sizes)} generator stages ({sizes}), but "
                f"{len(self.widths)} widths are set: give --g_dict and --num_layers {len(spec.stage_sizes)} values each, or "
                f"use --cfg=auto")


@dataclass(frozen=True)
class DiscriminatorConfig(AnyDiscriminator):
    """The StyleGAN2 discriminator."""

    kind: str = field(default="stylegan2", kw_only=True)
    mbstd_group: int = field(default=4, kw_only=True)  # images compared by the minibatch standard deviation
    architecture: str = "resnet"         # orig, resnet or skip
    channel_base: int = 32768            # channels at a size = base / size ...
    channel_max: int = 512               # ... but never more than this
    mapping_layers: int = 8              # linear layers from label to projection vector
    clamp: float | None = 256.0          # bound of every convolution's output; None = unbounded
    san: bool = False                    # the last layer is a direction of unit length with a loss of its own (SAN)

    def __post_init__(self) -> None:
        require(self.architecture in ARCHITECTURES,
                f"discriminator.architecture must be one of {', '.join(ARCHITECTURES)}; got '{self.architecture}'")
        require_range("discriminator", self, "mbstd_group channel_base channel_max", 1)
        require_range("discriminator", self, "mapping_layers", 0, MAX_LAYERS)
        require(self.clamp is None or self.clamp > 0, f"discriminator.clamp must be positive or none, got {self.clamp}")
        require(self.freeze_layers >= 0, f"--freezed must be 0 or more, got {self.freeze_layers}")

    @property
    def is_san(self) -> bool:
        return self.san

    def weight_settings(self) -> dict[str, object]:
        names = ("architecture", "channel_base", "channel_max", "mapping_layers", "san")
        return {name: getattr(self, name) for name in names}

    def channels(self, height: int, width: int) -> int:
        """Channels of the feature maps of this size (px)."""
        return max(min(self.channel_base // max(height, width), self.channel_max), 1)


@dataclass(frozen=True)
class LossConfig(AnyLoss):
    """Non-saturating logistic loss with R1 and path-length regularisation."""

    kind: str = field(default="logistic", kw_only=True)
    mixing_prob: float = field(default=0.9, kw_only=True)  # probability that a batch mixes the styles of two latents
    r1_gamma: Scheduled = 10.0           # weight of the gradient penalty; 0 = off
    r1_interval: int = 16                # batches between two penalties, also scales D's Adam
    pl_weight: float = 0.0               # weight of the path-length penalty; 0 = off
    pl_interval: int = 4                 # batches between two penalties, also scales G's Adam, even when it is off
    pl_decay: float = 0.01               # decay of the running mean path length
    pl_batch_shrink: int = 2             # the penalty sees 1/this of a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        require(lowest(self.r1_gamma) >= 0, f"loss.r1_gamma must be 0 or more, got {self.r1_gamma}")
        require_range("loss", self, "pl_weight", 0)
        require_range("loss", self, "r1_interval pl_interval pl_batch_shrink", 1)
        require_range("loss", self, "mixing_prob pl_decay", 0, 1)

    @property
    def lazy_intervals(self) -> tuple[int, int]:
        """Batches between two steps of the path-length penalty and of R1; Adam is scaled for them even when they are off."""
        return self.pl_interval, self.r1_interval

    def check_batch(self, micro_batch: int, group: int) -> None:
        require(self.pl_weight == 0 or micro_batch % self.pl_batch_shrink == 0,
                f"the {micro_batch} images of a forward pass are not a multiple of loss.pl_batch_shrink "
                f"{self.pl_batch_shrink}")

    def training_flops(self, G: float, D: float) -> float:
        r1 = 6 * D / self.r1_interval if highest(self.r1_gamma) > 0 else 0.0
        path_length = 6 * G / (self.pl_interval * self.pl_batch_shrink) if self.pl_weight > 0 else 0.0
        return super().training_flops(G, D) + r1 + path_length


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of what the discriminator sees (ADA)."""

    mode: str = "ada"                    # noaug, ada (adapt the probability) or fixed
    pipe: str = "bgc"                    # which transforms
    p: Scheduled = 0.0                   # probability: fixed, or where ada starts
    target: float = 0.6                  # ada holds the mean sign of D(real) at this value
    interval: int = 4                    # batches between two adjustments
    speed_kimg: float = 500.0            # thousands of images in which p can move from 0 to 1
    max_p: float = 1.0                   # bound of the probability in effect (0.7 if options choose Linformer)

    def __post_init__(self) -> None:
        require(self.mode in AUGMENT_MODES, f"--aug must be one of {', '.join(AUGMENT_MODES)}; got '{self.mode}'")
        require(self.pipe in AUGMENT_PIPES, f"--augpipe must be one of {', '.join(AUGMENT_PIPES)}; got '{self.pipe}'")
        require(0 <= lowest(self.p) <= highest(self.p) <= 1, f"--p must lie in 0..1, got {self.p}")
        require(0 <= self.target <= 1, f"--target must lie in 0..1, got {self.target}")
        require(self.interval >= 1, f"augment.interval must be 1 or more, got {self.interval}")
        require(self.speed_kimg > 0, f"augment.speed_kimg must be positive, got {self.speed_kimg}")
        require(0 < self.max_p <= 1, f"augment.max_p must lie in 0..1, got {self.max_p}")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for both networks."""

    g_lr: Scheduled = 0.0025             # learning rate of the generator, before lazy scaling
    d_lr: Scheduled = 0.0025             # learning rate of the discriminator, before lazy scaling
    beta1: float = 0.0                   # decay of the mean gradient
    beta2: Scheduled = 0.99              # decay of the mean squared gradient
    eps: float = 1e-8                    # added to the root mean square

    def __post_init__(self) -> None:
        require(lowest(self.g_lr) > 0 and lowest(self.d_lr) > 0,
                f"optimizer.g_lr and d_lr must be positive, got {self.g_lr} and {self.d_lr}")
        require(self.eps > 0, f"optimizer.eps must be positive, got {self.eps}")
        require(0 <= self.beta1 < 1 and 0 <= lowest(self.beta2) <= highest(self.beta2) < 1,
                f"optimizer.beta1 and beta2 must be at least 0 and below 1, got {self.beta1}, {self.beta2}")


@dataclass(frozen=True)
class EmaConfig:
    """The running averages of the generator: snapshots carry the first as G_ema, others as G_ema_<half-life>."""

    kimg: Scheduled | tuple[float, ...] = 10.0  # half-life, or one for each average
    rampup: float | None = 0.05          # half-life is at most this share of the images seen; None = no ramp-up
    reload_kimg: float | None = None     # after so many kimg the trained weights become G_ema's; None = never

    def __post_init__(self) -> None:
        half_lives = self.half_lives
        require(len(half_lives) > 0 and len(self.averages) == len(half_lives) == len(set(half_lives)),
                f"ema.kimg must name one half-life or several different ones, got {self.kimg}")
        require(min(map(lowest, half_lives)) >= 0, f"ema.kimg must be 0 or more, got {self.kimg}")
        require(self.reload_kimg is None or self.reload_kimg > 0, f"ema.reload_kimg must be positive, got {self.reload_kimg}")
        require_range("ema", self, "rampup", 0)

    @property
    def half_lives(self) -> tuple[Scheduled, ...]:
        """That of each average, thousands of images."""
        return self.kimg if isinstance(self.kimg, tuple) else (self.kimg,)

    @property
    def averages(self) -> dict[str, Scheduled]:
        """Name of each average in snapshots and states -> its half-life, thousands of images."""
        first, *others = self.half_lives
        return {"G_ema": first} | {f"G_ema_{half_life:g}": half_life for half_life in others}

    def sources(self, saved: "EmaConfig") -> dict[str, str]:
        """Name of each average -> the one it continues in a file with other settings: of its half-life, or else G_ema."""
        theirs = {half_life: name for name, half_life in saved.averages.items()}
        return {name: theirs.get(half_life, "G_ema") for name, half_life in self.averages.items()}


@dataclass(frozen=True)
class PerformanceConfig:
    """How the same training is computed: precision, compiler, memory for time. The defaults are plain float32."""

    precision: str = "fp32"              # of the large products: bf16, fp16, fp32, tf32; auto = what suits the device
    compile: str = "0"                   # compile both networks: 1, 0; auto = on GPUs where that works
    cuda_graphs: bool | None = False     # replay compiled networks as CUDA graphs: fewer launches; None = where possible
    recomputed_stages: int = 0           # last generator stages that the backward pass computes again: less memory

    def __post_init__(self) -> None:
        require(self.precision in PRECISIONS,
                f"--precision must be one of {', '.join(PRECISIONS)}; got '{self.precision}'")
        require(self.compile in COMPILE_CHOICES,
                f"--compile must be one of {', '.join(COMPILE_CHOICES)}; got '{self.compile}'")
        require(not self.cuda_graphs or self.compile != "0",
                "performance.cuda_graphs replays compiled networks: add --compile=1, or --compile=auto")
        require_range("performance", self, "recomputed_stages", 0)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, in what batches, and how often something is shown or saved."""

    kimg: float = 25000.0                # thousands of real images to train on
    burn_in_kimg: float = 0.0            # thousands of images in which settings given as start->end change
    batch: int = 32                      # images per optimizer step, over all processes
    batch_gpu: int | None = None         # images per forward pass; None = batch / processes
    seed: int = 0                        # random seed of the run
    tick_kimg: float = 4.0               # between two status lines
    snap_ticks: int = 50                 # ticks between two snapshots with images
    state_kimg: float | None = None      # between two state files; None = each snapshot and every 5 minutes
    keep: int = 0                        # newest snapshots to keep; 0 = all
    metrics: tuple[str, ...] = ()        # computed at each snapshot
    max_nonfinite: int = 20              # steps in a row with a loss or gradient that is not finite: the run has diverged
    max_rollbacks: int = 3               # returns of a diverged run to one good state before it gives up
    disk_retries: int = 10               # times that writing to a full disk is tried again
    disk_wait_sec: float = 60.0          # before each of them

    def __post_init__(self) -> None:
        for name, option in (("kimg", "--kimg"), ("tick_kimg", "--tick"), ("state_kimg", "--state-kimg")):
            kimg = getattr(self, name)
            require(kimg is None or 0.001 <= kimg <= MAX_KIMG,
                    f"{option} must be at least 0.001, which is one image, and at most {MAX_KIMG:g}, got {kimg}")
        require(0 <= self.seed < 2**63, f"--seed must lie in 0..{2**63 - 1}, got {self.seed}")
        require_range("schedule", self, "batch", 1, MAX_BATCH)
        require_range("schedule", self, "snap_ticks max_nonfinite", 1)
        require(self.batch_gpu is None or (self.batch_gpu >= 1 and self.batch % self.batch_gpu == 0),
                f"--batch={self.batch} is not a multiple of --batch-gpu={self.batch_gpu}")
        require_range("schedule", self, "keep max_rollbacks disk_retries disk_wait_sec burn_in_kimg", 0)

    def micro_batch(self, world_size: int, group: int = 1) -> int:
        """Images of one forward pass; raises ConfigError when the batch does not divide, with one that does into groups."""
        least, step = -(-self.batch // world_size), self.batch_gpu or 1  # images per process
        fitting = next(n for n in itertools.count(-(-least // step) * step, step) if self.batch_gpu or n % min(group, n) == 0)
        require(self.batch % (step * world_size) == 0,
                f"--batch={self.batch} is not a multiple of {f'--batch-gpu={step} x ' if self.batch_gpu else 'the '}{world_size} "
                f"processes (--gpus); use --batch={fitting * world_size}")
        return self.batch_gpu or self.batch // world_size


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes.

    Generator, discriminator and loss are annotated with the default kind; those of other kinds stand there as well.
    """

    preset: str = "custom"               # name of the preset it started from
    data: DataConfig = field(default_factory=DataConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    performance: PerformanceConfig = field(default_factory=PerformanceConfig)

    def check(self, spec: DatasetSpec, world_size: int = 1) -> None:
        """Raise ConfigError where the settings do not suit the images, the processes or each other."""
        for part in (self.generator, self.discriminator, self.loss):
            part.check(spec)
        micro_batch = self.schedule.micro_batch(world_size, self.discriminator.mbstd_group)
        group = min(self.discriminator.mbstd_group, micro_batch)
        require(micro_batch % group == 0,
                f"the {micro_batch} images of a forward pass are not a multiple of the minibatch-std group {group}: change "
                f"--batch, --batch-gpu or --set discriminator.mbstd_group")
        self.loss.check_batch(micro_batch, group)
        require(self.loss.class_weight == 0 or not self.discriminator.is_san,
                "loss.class_weight and discriminator.san exclude each other: use --set loss.class_weight=0 or "
                "--set discriminator.san=false")
        require(self.augment.mode != "ada" or not self.loss.is_relativistic,
                "--aug=ada follows the sign of D's logits, which means nothing with a relativistic loss: use --aug=noaug, or "
                "--aug=fixed with --p")
        changing = ramps(self)
        require(not changing or self.schedule.burn_in_kimg > 0,
                f"{', '.join(changing)} change while training: say how long with --set schedule.burn_in_kimg=...")
        require("augment.p" not in changing or self.augment.mode == "fixed",
                f"augment.p={self.augment.p} is a schedule, for augment.mode=fixed; with {self.augment.mode}: --set augment.p=0")

    def changed(self, **groups: dict[str, Any]) -> Self:
        """A copy with other values in some groups, such as `changed(schedule={"kimg": 100.0})`."""
        return replace(self, **{group: replace(getattr(self, group), **values) for group, values in groups.items()})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config whose `to_dict` gave these values; unknown keys raise ConfigError, missing ones get their default."""
        return build(cls, values, "config")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, as JSON has them."""
        plain: dict[str, Any] = to_plain(self)
        return plain


register("generator", GeneratorConfig, "training.networks.generator:Generator")
register("discriminator", DiscriminatorConfig, "training.networks.discriminator:Discriminator")
register("loss", LossConfig, "training.losses.logistic:LogisticLoss")
