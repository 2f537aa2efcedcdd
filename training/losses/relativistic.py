"""Relativistic pairing loss (arXiv 1807.00734) with R1 and R2 (R3GAN, arXiv 2501.05441), exact or as finite differences."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib.dataclass_values import require, require_range
from training.losses.base import AdversarialLoss
from training.losses.functions import difference_penalty, r1_penalty
from training.phases import MicroBatch, Phase
from training.registry import AnyLoss, register
from training.schedule import Scheduled, highest, lowest
from training.state import TrainState

PENALTIES = ("exact", "approx")
EPS, HALF_PRECISION_EPS = 0.01, 0.05  # bfloat16 rounds an image by up to 0.004
RATIO_INTERVAL = 64  # batches between two comparisons of approx with exact
RATIO_IMAGES = 8  # of each, about


@dataclass(frozen=True)
class RelativisticConfig(AnyLoss):
    """Relativistic pairing loss with R1 and R2, which belong to D's main step: Adam is not scaled for them."""

    is_relativistic = True

    kind: str = field(default="relativistic", kw_only=True)
    r1_gamma: Scheduled = 1.0  # weight of R1 (of real images) and R2 (of generated ones); 0 = off
    penalty: str = "approx"  # exact: second derivatives; approx: finite differences in compiled networks
    penalty_interval: int = 1  # batches between two penalties, which are multiplied by it
    penalty_share: float = 1.0  # share of the batch that they see
    penalty_eps: float | None = None  # standard deviation of approx's noise; None = 0.01, in half precision 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(lowest(self.r1_gamma) >= 0, f"loss.r1_gamma must be 0 or more, got {self.r1_gamma}")
        require(self.penalty in PENALTIES, f"loss.penalty must be one of {', '.join(PENALTIES)}; got '{self.penalty}'")
        require_range("loss", self, "penalty_interval", 1)
        require_range("loss", self, "mixing_prob", 0, 1)
        require(0 < self.penalty_share <= 1, f"loss.penalty_share must lie in 0..1, above 0, got {self.penalty_share}")
        require(
            self.penalty_eps is None or self.penalty_eps > 0,
            f"loss.penalty_eps must be positive, got {self.penalty_eps}",
        )

    def num_penalised(self, micro_batch: int) -> int:
        """Images of a micro-batch that the penalties see."""
        return max(round(micro_batch * self.penalty_share), 1)

    def check_batch(self, micro_batch: int, group: int) -> None:
        count = self.num_penalised(micro_batch)
        require(
            count % min(group, count) == 0,
            f"the penalties see {count} of the {micro_batch} images of a forward pass, which is not a multiple of the "
            f"minibatch-std group {group}: change --set loss.penalty_share or --set discriminator.mbstd_group",
        )

    def training_flops(self, G: float, D: float) -> float:
        passes = 2.0 if self.penalty == "approx" and self.penalty_share == 1 else 4.0
        penalties = 3 * D * passes * self.penalty_share / self.penalty_interval if highest(self.r1_gamma) > 0 else 0.0
        return super().training_flops(G, D) + D + penalties


class RelativisticLoss(AdversarialLoss):
    """Real image i of a micro-batch is paired with generated image i, of the same class.

    G's step is taken with the real images of D's step, which D sees only afterwards.
    """

    def __init__(self, state: TrainState) -> None:
        super().__init__(state)
        self.config: RelativisticConfig = state.config.loss  # type: ignore[assignment]
        self.is_approx = self.config.penalty == "approx"
        self.eps = self.config.penalty_eps or (HALF_PRECISION_EPS if self.precision.dtype else EPS)

    def phases(self) -> list[Phase]:
        allow_tf32 = self.precision.regularizer_tf32 and not self.is_approx  # for the second derivatives in it
        d_main = self.main_phase("D_main", 2, loss=self.d_main, allow_tf32=allow_tf32)
        return [self.main_phase("G_main", 0, loss=self.g_main), d_main]

    def is_due(self, interval: int) -> bool:
        """Whether the penalties are on, and what happens every `interval` batches happens in this one."""
        return self.state.now(self.config.r1_gamma) > 0 and self.state.batch_index % interval == 0

    def g_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """Generated images look more real than the real ones to D."""
        with torch.no_grad():
            real_logits = self.run_discriminator(batch.images, batch.labels)
        logits = self.run_discriminator(self.generate_alike(batch), batch.labels)
        self.report_logits("fake", logits)
        loss = F.softplus(real_logits - logits)
        self.state.stats.report("Loss/G/loss", loss)
        yield loss.mean()

    def d_main(self, batch: MicroBatch) -> Iterator[Tensor]:
        """Real images look more real than generated ones to D, and its logits change little where the images do."""
        with torch.no_grad():
            fakes = self.generate_alike(batch)
        images = {"real": (batch.images, batch.labels), "fake": (fakes, batch.labels)}
        direction = torch.Generator(self.state.device).manual_seed(batch.latents.seed)
        is_due = self.is_due(self.config.penalty_interval)
        is_joint = is_due and self.is_approx and self.config.penalty_share == 1
        logits, terms = {}, []
        for kind, (x, labels) in images.items():
            if is_joint:
                output, penalty = self.differences(x, labels, direction)
                terms.append(self.weighted(kind, penalty))
            else:
                output = self.judge(x, labels)
            logits[kind], more = self.logits_and_terms(kind, output, labels)
            terms += more
            self.report_logits(kind, logits[kind])
        loss = F.softplus(logits["fake"] - logits["real"])
        self.state.stats.report("Loss/D/loss", loss)
        yield sum(terms, loss.mean())
        if is_due and not is_joint:
            for kind, (x, labels) in images.items():
                count = self.config.num_penalised(len(x))
                yield self.weighted(kind, self.penalty(x[:count], labels[:count], direction))
        if self.is_approx and self.is_due(RATIO_INTERVAL):
            self.report_ratio(batch)

    def generate_alike(self, batch: MicroBatch) -> Tensor:
        """Generated images with the labels of the real ones: a pair differs in nothing but being real."""
        return self.generate(replace(batch.latents, c=batch.labels))

    def weighted(self, kind: str, penalty: Tensor) -> Tensor:
        """What the penalties [count] of `real` or `fake` images add to the loss."""
        self.state.stats.report("Loss/r1_penalty" if kind == "real" else "Loss/r2_penalty", penalty)
        return penalty.mean() * (self.state.now(self.config.r1_gamma) / 2 * self.config.penalty_interval)

    def penalty(self, images: Tensor, labels: Tensor, direction: torch.Generator) -> Tensor:
        """The squared gradient of the logit of each image, [count], by a forward pass of its own."""
        if self.is_approx:
            return self.differences(images, labels, direction)[1]
        images = images.detach().requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return r1_penalty(images, self.differentiable_logits(images, labels))

    def differences(self, images: Tensor, labels: Tensor, direction: torch.Generator) -> tuple[Tensor, Tensor]:
        """What `judge` returns of the images, and the squared gradients of their logits by finite differences, [count]."""
        first, moved = self.augment(self.moved(images, direction), self.compiled_pipe, copies=2).chunk(2)
        output, moved_output = (self.judge_augmented(half, labels) for half in (first, moved))
        return output, difference_penalty(output[:, :1], moved_output[:, :1], self.eps)

    def moved(self, images: Tensor, direction: torch.Generator | None = None) -> Tensor:
        """The images, and after them the same with noise, [2 * count, channels, height, width]."""
        noise = torch.randn(images.shape, generator=direction, dtype=images.dtype, device=images.device)
        return torch.cat([images, images + self.eps * noise])

    def report_ratio(self, batch: MicroBatch) -> None:
        """The mean of the finite differences of a few real images, as a share of what it should be."""
        D, group = self.state.D, self.state.config.discriminator.mbstd_group
        count = min(self.config.num_penalised(len(batch.images)), group * max(RATIO_IMAGES // group, 1))
        images, labels = batch.images[:count].detach().requires_grad_(True), batch.labels[:count]
        first, moved = self.augment(self.moved(images), self.pipe, copies=2).chunk(2)
        (gradient,) = torch.autograd.grad(D(first, labels).sum(), images)
        exact = gradient.square().sum(dim=[1, 2, 3])
        with torch.no_grad():
            logits, moved_logits = (D(half, labels, self.precision.dtype) for half in (first, moved))
        approx = difference_penalty(logits, moved_logits, self.eps)
        self.state.stats.report("Loss/r1_approx_to_exact", approx.mean() / exact.mean())


register("loss", RelativisticConfig, RelativisticLoss)
