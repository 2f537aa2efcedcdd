"""The optimizer steps of an iteration: what each one minimises, how often, and for which network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_utils.distributed import all_ranks_have, all_reduce_mean, average_gradients
from training.augment.pipe import AugmentPipe
from training.compilation import forward_pass, resolve_graphs
from training.health import Health
from training.latents import Latents
from training.loss import (
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)
from training.precision import resolve_precision, tf32_where
from training.state import TrainState


def synthesis_settings(dtype: torch.dtype | None, recomputed_stages: int) -> dict[str, Any]:
    """Arguments of the synthesis network as far as they are not its defaults."""
    return {name: value for name, value in (("dtype", dtype), ("recomputed_stages", recomputed_stages)) if value}


@dataclass(frozen=True)
class MicroBatch:
    """The images and latents of one forward pass."""

    images: Tensor  # real, [micro_batch, channels, height, width], -1..1
    labels: Tensor  # [micro_batch, c_dim]
    latents: Latents


class Losses:
    """What each phase minimises, for one micro-batch, and its statistics.

    A loss yields terms that add up. Each is back-propagated before the next one is computed, so that activations of one at
    a time are stored. The main phases run compiled networks where that is asked for. The regularisers take derivatives of
    derivatives, which compiled code has not, and which half precision spoils: they run the networks themselves in float32.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        self.config = state.config.loss
        augment = state.config.augment
        self.noise_mode = "random" if state.config.generator.noise else "none"
        performance = state.config.performance
        self.precision = resolve_precision(performance.precision, state.device)
        stages = performance.recomputed_stages
        self.synthesis_settings = synthesis_settings(self.precision.dtype, stages)
        self.has_graphs = all_ranks_have(resolve_graphs(performance, state.device))  # gradients lie accordingly
        compiled = partial(forward_pass, performance=performance, device=state.device, has_graphs=self.has_graphs)
        self.synthesis = compiled(state.G.synthesis)
        self.discriminator = compiled(state.D)
        self.pipe = None if augment.mode == "noaug" else AugmentPipe(augment.pipe).to(state.device)
        self.augment = self.pipe and compiled(self.pipe)
        self.pl_means: list[Tensor] = []  # the running mean path length as each micro-batch of a step would move it

    def styles(self, latents: Latents) -> Tensor:
        """Styles [batch, num_ws, w_dim]; the later ones from second latents where the batch mixes styles."""
        ws = self.state.G.mapping(latents.z, latents.c)
        if latents.mix_z is None:
            return ws.contiguous()  # as those below: a compiled network is made for one layout
        other = self.state.G.mapping(latents.mix_z, latents.c, track_mean=False)
        return torch.cat([ws[:, : latents.mix_from], other[:, latents.mix_from :]], dim=1)

    def generate(self, latents: Latents) -> Tensor:
        """Images [batch, channels, height, width] for a main phase."""
        return self.synthesis(self.styles(latents), noise_mode=self.noise_mode, **self.synthesis_settings)

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits [batch, 1] of augmented images for a main phase."""
        if self.augment is not None:
            images = self.augment(images, self.state.ada.p_clamped)
        return self.discriminator(images, labels, self.precision.dtype)

    def report_logits(self, kind: str, logits: Tensor) -> None:
        """Statistics of the logits of `real` or `fake` images."""
        self.state.stats.report(f"Loss/scores/{kind}", logits)
        self.state.stats.report(f"Loss/signs/{kind}", logits.sign())

    def g_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The generator makes images that are judged real."""
        logits = self.judge(self.generate(batch.latents), batch.latents.c)
        self.report_logits("fake", logits)
        loss = generator_loss(logits)
        self.state.stats.report("Loss/G/loss", loss)
        yield loss.mean()

    def g_path_length(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The generator moves its images evenly with the styles (StyleGAN2, section 3.2)."""
        count = len(batch.images) // self.config.pl_batch_shrink
        whole = batch.latents
        mix_z = None if whole.mix_z is None else whole.mix_z[:count]
        latents = Latents(whole.z[:count], whole.c[:count], mix_z, whole.mix_from, whole.seed)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            ws = self.styles(latents)
            images = self.state.G.synthesis(ws, noise_mode=self.noise_mode)
            direction = torch.Generator(images.device).manual_seed(whole.seed)
            noise = torch.randn(images.shape, generator=direction, device=images.device)
            lengths = path_lengths(images, ws, noise)
        penalty, pl_mean = path_length_penalty(lengths, self.state.pl_mean, self.config.pl_decay)
        self.pl_means.append(pl_mean)
        self.state.stats.report("Loss/pl_penalty", penalty)
        self.state.stats.report("Loss/path_length", lengths)
        yield (penalty * self.config.pl_weight).mean()

    def update_pl_mean(self) -> None:
        """Move the running mean path length by all micro-batches of a step alike, on whatever rank they were.

        It stays, on every rank, where a length on any rank is not finite: from NaN it would never come back.
        """
        mean = all_reduce_mean(torch.stack(self.pl_means).mean())
        self.state.pl_mean = torch.where(mean.isfinite(), mean, self.state.pl_mean)
        self.pl_means.clear()

    def d_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The discriminator tells generated images from real ones: two terms, of which one at a time is in memory."""
        with torch.no_grad():
            fakes = self.generate(batch.latents)
        logits = self.judge(fakes, batch.latents.c)
        self.report_logits("fake", logits)
        fake_loss = discriminator_fake_loss(logits)
        yield fake_loss.mean()
        logits = self.judge(batch.images, batch.labels)
        self.report_logits("real", logits)
        self.state.ada.report(logits)
        real_loss = discriminator_real_loss(logits)
        self.state.stats.report("Loss/D/loss", fake_loss.detach() + real_loss)
        yield real_loss.mean()

    def d_r1(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The discriminator is flat around real images (R1, arXiv 1801.04406)."""
        images = batch.images.detach().requires_grad_(True)
        augmented = images if self.pipe is None else self.pipe(images, self.state.ada.p_clamped)
        logits = self.state.D(augmented, batch.labels)
        self.report_logits("real", logits)
        self.state.ada.report(logits)
        penalty = r1_penalty(images, logits)
        loss = penalty * (self.config.r1_gamma / 2)
        self.state.stats.report("Loss/r1_penalty", penalty)
        self.state.stats.report("Loss/D/reg", loss)
        yield loss.mean()


NO_SCALER = torch.amp.GradScaler(enabled=False)


@dataclass(frozen=True)
class Phase:
    """One optimizer step of an iteration, with gradient accumulation over micro-batches."""

    name: str
    network: nn.Module  # whose trained parameters require gradients meanwhile, the other's do not
    other: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    loss: Callable[[MicroBatch], Iterable[Tensor]]  # terms that add up, back-propagated one by one
    interval: int  # batches between two steps
    gain: float  # a lazily applied loss counts for all the batches between two steps
    finish: Callable[[], None]  # called after the optimizer step
    health: Health  # told whether loss and gradients were finite
    scaler: torch.amp.GradScaler = NO_SCALER  # of the loss, where gradients pass through float16
    allow_tf32: bool = False  # float32 products are rounded to TF32
    has_graphs: bool = False  # CUDA graphs write to memory of their own: gradients are added to buffers that stay

    def is_due(self, batch_index: int) -> bool:
        """Whether this phase takes a step in the batch of this index."""
        return batch_index % self.interval == 0

    def step(self, batches: Sequence[MicroBatch]) -> None:
        """Accumulate the gradients of the micro-batches, average them over the processes and update the weights."""
        self.other.requires_grad_(False)
        for parameter in self.parameters:  # frozen layers stay without
            parameter.requires_grad_(True)
        self.clear_gradients()
        with tf32_where(self.allow_tf32):
            loss = self.accumulate(batches)
        if self.scaler.is_enabled():
            self.update_scaled(loss)
        else:
            self.health.report(average_gradients(self.parameters, loss)[1])
            self.optimizer.step()
        self.finish()

    def accumulate(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Add the gradients of all micro-batches to the parameters; returns the loss, [], without its scale."""
        share, total = self.gain / len(batches), torch.zeros([], device=self.parameters[0].device)
        for batch in batches:
            if self.has_graphs:
                torch.compiler.cudagraph_mark_step_begin()
            for term in self.loss(batch):
                loss = term if share == 1 else term * share
                self.scaler.scale(loss).backward()
                total += loss.detach()
        return total

    def update_scaled(self, loss: Tensor) -> None:
        """Update the weights by gradients of the scaled loss, unless some overflowed, and adapt the scale.

        Gradients are averaged as they are, so that all ranks see the overflow of any. A step left out for an overflow is no
        fault, since the next one has a smaller scale. It is a fault where the loss itself is not finite, or the scale is down
        to 1 and gradients overflow all the same.
        """
        scale = self.scaler.scale(torch.ones_like(loss))
        loss, is_finite = average_gradients(self.parameters, loss, replace=False)
        self.health.report(is_finite | (loss.isfinite() & (scale > 1)))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def clear_gradients(self) -> None:
        """Forget the gradients of the step before."""
        self.optimizer.zero_grad(set_to_none=not self.has_graphs)
        if self.has_graphs:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)


def build_phases(state: TrainState) -> list[Phase]:
    """The phases of this configuration, in the order in which an iteration runs them."""
    losses, config = Losses(state), state.config.loss
    main_phase = partial(Phase, has_graphs=losses.has_graphs)
    regularizer = partial(Phase, allow_tf32=losses.precision.regularizer_tf32)

    def update_w_avg() -> None:
        mapping = state.G.mapping_network
        all_reduce_mean(mapping.w_sum)  # of as many w on every rank
        mapping.update_w_avg()

    def finish_path_length() -> None:
        losses.update_pl_mean()
        update_w_avg()

    generator = (state.G, state.D, state.g_parameters, state.g_optimizer)
    discriminator = (state.D, state.G, state.d_parameters, state.d_optimizer)
    phases = [main_phase("G_main", *generator, losses.g_main, 1, 1.0, update_w_avg, state.health, state.g_scaler)]
    if config.pl_weight > 0:
        every = config.pl_interval
        phases.append(
            regularizer("G_pl", *generator, losses.g_path_length, every, float(every), finish_path_length, state.health)
        )
    phases.append(
        main_phase("D_main", *discriminator, losses.d_main, 1, 1.0, update_w_avg, state.health, state.d_scaler)
    )
    if config.r1_gamma > 0:
        every = config.r1_interval
        phases.append(regularizer("D_r1", *discriminator, losses.d_r1, every, float(every), lambda: None, state.health))
    return phases
