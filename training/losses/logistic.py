"""The loss of StyleGAN2 (arXiv 1912.04958): non-saturating logistic, with R1 and path-length regularisation."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_utils.distributed import all_reduce_mean
from training.latents import Latents
from training.losses.base import AdversarialLoss
from training.losses.functions import path_length_penalty, path_lengths, r1_penalty
from training.phases import MicroBatch, Phase
from training.schedule import highest
from training.state import TrainState


class LogisticLoss(AdversarialLoss):
    """What each phase minimises, for one micro-batch.

    A method yields terms that add up. Each is back-propagated before the next one is computed, so that only the activations
    of one are stored.
    """

    def __init__(self, state: TrainState) -> None:
        super().__init__(state)
        self.config = state.config.loss
        self.pl_means: list[Tensor] = []  # the running mean path length as each micro-batch of a step would move it
        state.loss_buffers.setdefault("pl_mean", torch.zeros([], device=state.device))

    def phases(self) -> list[Phase]:
        """G_main, G_pl, D_main, D_r1; without the regularisers that are off."""
        config = self.config
        phases = [self.main_phase("G_main", 0, loss=self.g_main)]
        if config.pl_weight > 0:
            finish = self.finish_path_length
            phases.append(self.regularizer("G_pl", 1, config.pl_interval, loss=self.g_path_length, finish=finish))
        phases.append(self.main_phase("D_main", 2, loss=self.d_main))
        if highest(config.r1_gamma) > 0:
            phases.append(self.regularizer("D_r1", 3, config.r1_interval, loss=self.d_r1))
        return phases

    def g_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The generator makes images that D takes for real."""
        logits = self.run_discriminator(self.generate(batch.latents), batch.latents.c)
        self.report_logits("fake", logits)
        loss = F.softplus(-logits)
        self.state.stats.report("Loss/G/loss", loss)
        yield loss.mean()

    def g_path_length(self, batch: MicroBatch) -> Iterator[Tensor]:
        """Images move evenly with the styles (StyleGAN2, section 3.2); for a part of the batch."""
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
        penalty, pl_mean = path_length_penalty(lengths, self.state.loss_buffers["pl_mean"], self.config.pl_decay)
        self.pl_means.append(pl_mean)
        self.state.stats.report("Loss/pl_penalty", penalty)
        self.state.stats.report("Loss/path_length", lengths)
        yield (penalty * self.config.pl_weight).mean()

    def finish_path_length(self) -> None:
        self.update_pl_mean()
        self.update_w_avg()

    def update_pl_mean(self) -> None:
        """Move the running mean path length by all micro-batches of a step, over all ranks.

        It stays, on every rank, where a length on any rank is not finite: it would never recover from NaN.
        """
        mean = all_reduce_mean(torch.stack(self.pl_means).mean())
        buffers = self.state.loss_buffers
        buffers["pl_mean"] = torch.where(mean.isfinite(), mean, buffers["pl_mean"])
        self.pl_means.clear()

    def d_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The discriminator tells generated images from real ones."""
        with torch.no_grad():
            fakes = self.generate(batch.latents)
        logits, terms = self.logits_and_terms("fake", self.judge(fakes, batch.latents.c), batch.latents.c)
        self.report_logits("fake", logits)
        fake_loss = F.softplus(logits)
        yield sum(terms, fake_loss.mean())
        logits, terms = self.logits_and_terms("real", self.judge(batch.images, batch.labels), batch.labels)
        self.report_logits("real", logits)
        real_loss = F.softplus(-logits)
        self.state.stats.report("Loss/D/loss", fake_loss.detach() + real_loss)
        yield sum(terms, real_loss.mean())

    def d_r1(self, batch: MicroBatch) -> Iterator[Tensor]:
        """The gradient of D's logits by real images is small (R1, arXiv 1801.04406)."""
        images = batch.images.detach().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # of a discriminator with attention
            logits = self.differentiable_logits(images, batch.labels)
            penalty = r1_penalty(images, logits)
        self.report_logits("real", logits)
        loss = penalty * (self.state.now(self.config.r1_gamma) / 2)
        self.state.stats.report("Loss/r1_penalty", penalty)
        self.state.stats.report("Loss/D/reg", loss)
        yield loss.mean()
