"""What is measured against each other: the same steps of training and generating, as published and as ours."""

import abc
import copy

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


def make_batch(config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> MicroBatch:
    """Images, labels and latents of a step, without style mixing."""
    random = torch.Generator().manual_seed(config.schedule.seed)
    images = torch.rand(batch, spec.channels, spec.height, spec.width, generator=random) * 2 - 1
    labels = torch.eye(max(spec.label_dim, 1))[torch.arange(batch) % max(spec.label_dim, 1), : spec.label_dim]
    z = torch.randn(batch, config.generator.z_dim, generator=random)
    latents = Latents(z.to(device), labels.to(device), None, 1, 0)
    return MicroBatch(images.to(device), labels.to(device), latents)


class Contender(abc.ABC):
    """One way to compute, with weights of its own."""

    G: nn.Module
    D: nn.Module
    G_ema: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def __init__(self, config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> None:
        self.config = config
        self.batch = make_batch(config, spec, batch, device)
        ema = config.ema
        self.ema_beta = ema_beta(batch, WARM_NIMG, highest(ema.half_lives[0]) * 1000, ema.rampup)

    @abc.abstractmethod
    def step(self, phase: str) -> None:
        """One optimizer step: g_main, d_main or d_r1."""

    @abc.abstractmethod
    def end_iteration(self) -> None:
        """Move the average of the weights."""

    @abc.abstractmethod
    def forward(self) -> Tensor:
        """Return the generator's pass in training."""

    @abc.abstractmethod
    def judge(self) -> Tensor:
        """Return the discriminator's pass in training, on the real images."""

    @abc.abstractmethod
    def generate(self) -> Tensor:
        """Images from the average of the weights."""

    def iteration(self) -> None:
        """A generator and a discriminator step, and the averages."""
        self.step("g_main")
        self.step("d_main")
        self.end_iteration()

    def lasting_bytes(self) -> int:
        """Bytes of weights, buffers and what the optimizers keep; gradients, which do not last, are dropped."""
        tensors: list[Tensor] = []
        for network in (self.G, self.D, self.G_ema):
            network.zero_grad(set_to_none=True)
            tensors += [*network.parameters(), *network.buffers()]
        for optimizer in self.optimizers:
            tensors += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


class Ours(Contender):
    """This project's own training, under one configuration."""

    def __init__(self, config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> None:
        super().__init__(config, spec, batch, device)
        self.state = TrainState(config, spec, device)
        self.G, self.D, self.G_ema = self.state.G, self.state.D, self.state.G_ema
        self.optimizers = [self.state.g.optimizer, self.state.d.optimizer]
        self.phases = {phase.name: phase for phase in build_phases(self.state)}
        self.losses = LogisticLoss(self.state)
        self.synthesis = forward_pass(self.state.G_ema.synthesis, config.performance, device)

    def step(self, phase: str) -> None:
        self.phases[PHASE_NAMES[phase]].step([self.batch])

    def end_iteration(self) -> None:
        update_ema(self.state.G_ema, self.state.G, self.ema_beta)
        self.state.finite.end_step()

    def forward(self) -> Tensor:
        return self.losses.generate(self.batch.latents)

    def judge(self) -> Tensor:
        return self.losses.run_discriminator(self.batch.images, self.batch.labels)

    @torch.no_grad()
    def generate(self) -> Tensor:
        ws = self.state.G_ema.mapping(self.batch.latents.z, self.batch.latents.c)
        return self.synthesis(ws, "const", self.losses.precision.dtype)


class Published(Contender):
    """The published training step: plain networks, float32, one optimizer and averaging operation a tensor."""

    def __init__(self, config: RunConfig, spec: DatasetSpec, batch: int, device: torch.device) -> None:
        super().__init__(config, spec, batch, device)
        self.G: Generator = Generator(config.generator, spec).to(device).train()
        self.D: Discriminator = Discriminator(config.discriminator, spec).to(device).train()
        self.G_ema: Generator = copy.deepcopy(self.G).eval().requires_grad_(False)
        optimizer, loss = config.optimizer, config.loss
        self.optimizers = [
            self.adam(self.G, highest(optimizer.g_lr), loss.pl_interval),
            self.adam(self.D, highest(optimizer.d_lr), loss.r1_interval),
        ]
        self.pipe = None if config.augment.mode == "noaug" else AugmentPipe(config.augment.pipe).to(device)
        self.p = torch.tensor(highest(config.augment.p), device=device)
        self.noise_mode = "random" if config.generator.noise else "none"

    def adam(self, network: nn.Module, lr: float, interval: int) -> torch.optim.Adam:
        """Adam with lazy scaling, one parameter at a time."""
        config, ratio = self.config.optimizer, interval / (interval + 1)
        betas = (config.beta1**ratio, highest(config.beta2) ** ratio)
        return torch.optim.Adam(network.parameters(), lr * ratio, betas, config.eps, foreach=False, fused=False)

    def logits(self, images: Tensor, c: Tensor) -> Tensor:
        """Return the discriminator's logits of augmented images; the augmentation is ours, at the same cost."""
        images = images if self.pipe is None else self.pipe(images, self.p)
        return baseline.discriminator(self.D, images, c)

    def backward(self, phase: str) -> None:
        """Back-propagate the loss of a phase, part by part."""
        batch, loss = self.batch, self.config.loss
        if phase == "g_main":
            F.softplus(-self.logits(self.forward(), batch.latents.c)).mean().backward()
        elif phase == "d_main":
            F.softplus(self.logits(self.forward(), batch.latents.c)).mean().backward()
            F.softplus(-self.judge()).mean().backward()
        else:
            images = batch.images.detach().requires_grad_(True)
            penalty = r1_penalty(images, self.logits(images, batch.labels))
            (penalty * (highest(loss.r1_gamma) / 2 * loss.r1_interval)).mean().backward()

    def step(self, phase: str) -> None:
        is_g = phase == "g_main"
        network, other = (self.G, self.D) if is_g else (self.D, self.G)
        optimizer = self.optimizers[0 if is_g else 1]
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        other.requires_grad_(False)
        self.backward(phase)
        for parameter in network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()

    @torch.no_grad()
    def end_iteration(self) -> None:
        for mean, parameter in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
            mean.copy_(parameter.lerp(mean, self.ema_beta))
        for kept, buffer in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            kept.copy_(buffer)

    def forward(self) -> Tensor:
        latents = self.batch.latents
        return baseline.generator(self.G, latents.z, latents.c, self.noise_mode)

    def judge(self) -> Tensor:
        return self.logits(self.batch.images, self.batch.labels)

    @torch.no_grad()
    def generate(self) -> Tensor:
        latents = self.batch.latents
        return baseline.generator(self.G_ema, latents.z, latents.c, "const")
