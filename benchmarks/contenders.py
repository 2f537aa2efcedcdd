"""What is measured against each other: the same steps of training and generating, as published and as ours."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import baseline
from training.augment.pipe import AugmentPipe
from training.compilation import forward_pass
from training.config import DatasetSpec, RunConfig
from training.ema import ema_beta, update_ema
from training.latents import Latents
from training.losses import build_phases
from training.losses.functions import r1_penalty
from training.losses.logistic import LogisticLoss
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.phases import MicroBatch
from training.schedule import highest
from training.state import TrainState

PHASE_NAMES = {"g_main": "G_main", "d_main": "D_main", "d_r1": "D_r1"}  # ours by the names of the rows
WARM_NIMG = 1_000_000  # images that the average of the weights assumes were seen


class Contender(Protocol):
    """One way to compute, with weights of its own."""

    @property
    def G(self) -> nn.Module:
        """The generator."""

    @property
    def D(self) -> nn.Module:
        """The discriminator."""

    def step(self, phase: str) -> None:
        """One optimizer step: g_main, d_main or d_r1."""

    def iteration(self) -> None:
        """A generator and a discriminator step, and the averages."""

    def forward(self) -> Tensor:
        """Return the generator's pass in training."""

    def judge(self) -> Tensor:
        """Return the discriminator's pass in training, on the real images."""

    def generate(self) -> Tensor:
        """Images from the average of the weights."""

    def lasting_bytes(self) -> int:
        """Weights, and what the optimizers keep."""


def make_batch(config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> MicroBatch:
    """Images, labels and latents of a step, without style mixing."""
    random = torch.Generator().manual_seed(config.schedule.seed)
    images = torch.rand(batch, spec.channels, spec.height, spec.width, generator=random) * 2 - 1
    labels = torch.eye(max(spec.label_dim, 1))[torch.arange(batch) % max(spec.label_dim, 1), : spec.label_dim]
    z = torch.randn(batch, config.generator.z_dim, generator=random)
    latents = Latents(z.to(device), labels.to(device), None, 1, 0)
    return MicroBatch(images.to(device), labels.to(device), latents)


def num_bytes(modules: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Bytes of parameters, buffers and the optimizers' state."""
    tensors = [t for module in modules for t in [*module.parameters(), *module.buffers()]]
    for optimizer in optimizers:
        tensors += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class Ours:
    """This project's own training, under one configuration."""

    def __init__(self, config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> None:
        self.config = config
        self.batch = make_batch(config, spec, batch, device)
        self.state = TrainState(config, spec, device)
        self.G, self.D = self.state.G, self.state.D
        self.phases = {phase.name: phase for phase in build_phases(self.state)}
        self.losses = LogisticLoss(self.state)
        self.synthesis = forward_pass(self.state.G_ema.synthesis, config.performance, device)

    def step(self, phase: str) -> None:
        """One optimizer step: g_main, d_main or d_r1."""
        self.phases[PHASE_NAMES[phase]].step([self.batch])

    def iteration(self) -> None:
        """A generator and a discriminator step, and the averages."""
        self.step("g_main")
        self.step("d_main")
        ema = self.config.ema
        beta = ema_beta(len(self.batch.images), WARM_NIMG, highest(ema.half_lives[0]) * 1000, ema.rampup)
        update_ema(self.state.G_ema, self.state.G, beta)
        self.state.finite.end_step()

    def forward(self) -> Tensor:
        """Return the generator's pass in training."""
        return self.losses.generate(self.batch.latents)

    def judge(self) -> Tensor:
        """Return the discriminator's pass in training, on the real images."""
        return self.losses.run_discriminator(self.batch.images, self.batch.labels)

    @torch.no_grad()
    def generate(self) -> Tensor:
        """Images from the average of the weights."""
        latents = self.batch.latents
        ws = self.state.G_ema.mapping(latents.z, latents.c)
        return self.synthesis(ws, "const", self.losses.precision.dtype)

    def lasting_bytes(self) -> int:
        """Weights, and what the optimizers keep."""
        state = self.state
        return num_bytes([state.G, state.D, state.G_ema], [state.g.optimizer, state.d.optimizer])


@dataclass(frozen=True)
class PublishedLosses:
    """What each published phase back-propagates, part by part."""

    owner: "Published"

    def augment(self, images: Tensor) -> Tensor:
        """Return the same augmentation as ours, at the same cost."""
        return images if self.owner.pipe is None else self.owner.pipe(images, self.owner.p)

    def fakes(self) -> Tensor:
        """Generated images."""
        latents = self.owner.batch.latents
        return baseline.generator(self.owner.G, latents.z, latents.c, self.owner.noise_mode)

    def logits(self, images: Tensor, c: Tensor) -> Tensor:
        """Return the discriminator's logits of augmented images."""
        return baseline.discriminator(self.owner.D, self.augment(images), c)

    def g_main(self) -> None:
        """The generator's loss."""
        F.softplus(-self.logits(self.fakes(), self.owner.batch.latents.c)).mean().backward()

    def d_main(self) -> None:
        """The discriminator's loss: generated images, then real ones."""
        batch = self.owner.batch
        F.softplus(self.logits(self.fakes(), batch.latents.c)).mean().backward()
        F.softplus(-self.logits(batch.images, batch.labels)).mean().backward()

    def d_r1(self) -> None:
        """The gradient penalty."""
        batch, loss = self.owner.batch, self.owner.config.loss
        images = batch.images.detach().requires_grad_(True)
        penalty = r1_penalty(images, self.logits(images, batch.labels))
        (penalty * (highest(loss.r1_gamma) / 2 * loss.r1_interval)).mean().backward()


class Published:
    """The published training step: plain networks, float32, one optimizer and averaging operation a tensor."""

    def __init__(self, config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> None:
        self.config = config
        self.batch = make_batch(config, spec, batch, device)
        self.G = Generator(config.generator, spec).to(device).train()
        self.D = Discriminator(config.discriminator, spec).to(device).train()
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        optimizer, loss = config.optimizer, config.loss
        self.g_optimizer = self.adam(self.G, highest(optimizer.g_lr), loss.pl_interval)
        self.d_optimizer = self.adam(self.D, highest(optimizer.d_lr), loss.r1_interval)
        self.pipe = None if config.augment.mode == "noaug" else AugmentPipe(config.augment.pipe).to(device)
        self.p = torch.tensor(highest(config.augment.p), device=device)
        self.noise_mode = "random" if config.generator.noise else "none"
        self.losses = PublishedLosses(self)

    def adam(self, network: nn.Module, lr: float, interval: int) -> torch.optim.Adam:
        """Adam with lazy scaling, one parameter at a time."""
        config, ratio = self.config.optimizer, interval / (interval + 1)
        betas = (config.beta1**ratio, highest(config.beta2) ** ratio)
        return torch.optim.Adam(network.parameters(), lr * ratio, betas, config.eps, foreach=False, fused=False)

    def step(self, phase: str) -> None:
        """One optimizer step: g_main, d_main or d_r1."""
        is_g = phase == "g_main"
        network, optimizer = (self.G, self.g_optimizer) if is_g else (self.D, self.d_optimizer)
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        (self.D if is_g else self.G).requires_grad_(False)
        {"g_main": self.losses.g_main, "d_main": self.losses.d_main, "d_r1": self.losses.d_r1}[phase]()
        for parameter in network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average of the weights, tensor by tensor."""
        ema = self.config.ema
        beta = ema_beta(len(self.batch.images), WARM_NIMG, highest(ema.half_lives[0]) * 1000, ema.rampup)
        for mean, parameter in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
            mean.copy_(parameter.lerp(mean, beta))
        for kept, buffer in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            kept.copy_(buffer)

    def iteration(self) -> None:
        """A generator and a discriminator step, and the average."""
        self.step("g_main")
        self.step("d_main")
        self.update_average()

    def forward(self) -> Tensor:
        """Return the generator's pass in training."""
        latents = self.batch.latents
        return baseline.generator(self.G, latents.z, latents.c, self.noise_mode)

    def judge(self) -> Tensor:
        """Return the discriminator's pass in training, on the real images."""
        return self.losses.logits(self.batch.images, self.batch.labels)

    @torch.no_grad()
    def generate(self) -> Tensor:
        """Images from the average of the weights."""
        latents = self.batch.latents
        return baseline.generator(self.G_ema, latents.z, latents.c, "const")

    def lasting_bytes(self) -> int:
        """Weights, and what the optimizers keep."""
        return num_bytes([self.G, self.D, self.G_ema], [self.g_optimizer, self.d_optimizer])
