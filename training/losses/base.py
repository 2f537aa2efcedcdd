"""What all adversarial losses share: how the networks run in a phase, and the statistics of their logits."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.distributed import all_ranks_have, all_reduce_mean
from training.augment.pipe import AugmentPipe
from training.compilation import forward_pass, resolve_graphs
from training.latents import Latents
from training.phases import Phase
from training.precision import resolve_precision
from training.state import TrainState

CLASS_SHARPNESS = 8.0  # inverse temperature of the cross-entropy over classes


class AdversarialLoss:
    """Base of the losses: a subclass yields the terms of each phase for one micro-batch, and lists its phases.

    Main phases run the compiled networks in the chosen precision. Phases with second derivatives, which compiled code lacks
    and half precision spoils, call the networks themselves in float32.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        config = state.config
        self.noise_mode = "random" if config.generator.noise else "none"
        self.precision = resolve_precision(config.performance.precision, state.device)
        settings = {"dtype": self.precision.dtype, "recomputed_stages": config.performance.recomputed_stages}
        self.synthesis_settings = {
            name: value for name, value in settings.items() if value
        }  # those that are not defaults
        self.has_graphs = all_ranks_have(resolve_graphs(config.performance, state.device))
        compiled = partial(
            forward_pass, performance=config.performance, device=state.device, has_graphs=self.has_graphs
        )
        self.class_weight = config.loss.class_weight
        self.d_settings = {"in_two_terms": True} if config.discriminator.is_san else {}  # in D's phases
        self.d_main_settings = self.d_settings | ({"class_logits": True} if self.class_weight else {})
        self.synthesis = compiled(state.G.synthesis)
        self.discriminator = compiled(state.D)
        self.pipe = None if config.augment.mode == "noaug" else AugmentPipe(config.augment.pipe).to(state.device)
        self.compiled_pipe = self.pipe and compiled(self.pipe)

    def phases(self) -> list[Phase]:
        """The optimizer steps of an iteration, in the order in which they run."""
        raise NotImplementedError

    def main_phase(self, name: str, stream: int, **settings: Any) -> Phase:
        """A phase that runs at every batch, through the compiled networks."""
        scaler = (self.state.g if name.startswith("G") else self.state.d).scaler
        return self.phase(name, stream, has_graphs=self.has_graphs, scaler=scaler, **settings)

    def regularizer(self, name: str, stream: int, interval: int, **settings: Any) -> Phase:
        """A phase with second derivatives, every `interval` batches, in float32."""
        return self.phase(name, stream, interval=interval, allow_tf32=self.precision.regularizer_tf32, **settings)

    def phase(self, name: str, stream: int, **settings: Any) -> Phase:
        """The phase called G_... or D_..., after the network that it updates; it ends with `update_w_avg` by default."""
        state = self.state
        settings.setdefault("finish", self.update_w_avg)
        trained, frozen = (state.g, state.D) if name.startswith("G") else (state.d, state.G)
        return Phase(name, trained, frozen, finite=state.finite, stream=stream, **settings)

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

    def run_discriminator(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits [batch, 1] of augmented images for a main phase."""
        return self.discriminator(self.augment(images, self.compiled_pipe), labels, self.precision.dtype)

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        """What D returns of augmented images in its main phase, for `logits_and_terms`: [batch, 1 or more]."""
        return self.judge_augmented(self.augment(images, self.compiled_pipe), labels)

    def judge_augmented(self, images: Tensor, labels: Tensor) -> Tensor:
        """As `judge`, of images that were augmented before."""
        return self.discriminator(images, labels, self.precision.dtype, **self.d_main_settings)

    def logits_and_terms(self, kind: str, output: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits [batch, 1] of `real` or `fake` images, and what D minimises beside their loss, each [].

        With SAN that is its term; with `class_weight` the cross-entropy over the classes of real images, where the projection
        head serves as the classifier of AC-GAN (arXiv 1610.09585). It is sharp, so that small differences between logits
        satisfy it: large ones would make typical images worth more than real-looking ones, and variety would fall.
        """
        terms = []
        if "in_two_terms" in self.d_main_settings:
            direction = output[:, 1].mean()
            terms.append(direction if kind == "fake" else -direction)
        if self.class_weight and kind == "real":
            loss = F.cross_entropy(output[:, 1:] * CLASS_SHARPNESS, labels)
            self.state.stats.report("Loss/D/class", loss)
            terms.append(loss * self.state.now(self.class_weight))
        return output[:, :1], terms

    def differentiable_logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Logits [batch, 1] of augmented images for a term with second derivatives: eagerly, in float32."""
        return self.state.D(self.augment(images, self.pipe), labels, **self.d_settings)[:, :1]

    def augment(self, images: Tensor, pipe: Any, **settings: Any) -> Tensor:
        """The images as the discriminator sees them, through `pipe`, the compiled one or the module itself."""
        return images if pipe is None else pipe(images, self.state.ada.p_clamped, **settings)

    def report_logits(self, kind: str, logits: Tensor) -> None:
        """Statistics of the logits of `real` or `fake` images; those of real ones drive ADA."""
        self.state.stats.report(f"Loss/scores/{kind}", logits)
        self.state.stats.report(f"Loss/signs/{kind}", logits.sign())
        if kind == "real":
            self.state.ada.report(logits)

    def update_w_avg(self) -> None:
        """Move the running mean of w by the styles of a step, if it made some, over all ranks."""
        mapping = self.state.G.mapping_network
        if mapping.w_count:  # as many on every rank
            all_reduce_mean(mapping.w_sum)
            mapping.update_w_avg()
