"""Base class of the generators: a mapping network followed by a synthesis network."""

from typing import Any

from torch import Tensor, nn

from training.config import DatasetSpec, RunConfig
from training.networks.layers import EqualizedLinear
from training.networks.mapping import MappingNetwork, truncate
from training.registry import AnyGenerator


class StyleGenerator(nn.Module):
    """A mapping network; subclasses add `synthesis`.

    `synthesis(ws, noise_mode="random", dtype=None, recomputed_stages=0)` maps styles [batch, synthesis.num_ws, w_dim] to
    images; `synthesis.style_layers()` lists the linear maps that read each style.
    """

    synthesis: Any
    run_config: RunConfig | None = None  # of the snapshot that it was loaded from
    snapshot: str = ""  # path of that

    def __init__(self, config: AnyGenerator, spec: DatasetSpec) -> None:
        super().__init__()
        config.check(spec)
        self.z_dim, self.w_dim, self.c_dim = config.z_dim, config.w_dim, spec.label_dim
        self.class_names, self.labels_are_vectors = spec.class_names, spec.labels_are_vectors
        self.img_channels = spec.channels
        self.img_height, self.img_width = spec.height, spec.width
        self.img_resolution = max(spec.height, spec.width)
        self.mapping_network = MappingNetwork(
            config.z_dim,
            spec.label_dim,
            config.w_dim,
            config.mapping_layers,
            lr_mult=config.mapping_lr_mult,
            w_avg_beta=config.w_avg_beta,
        )

    @property
    def num_ws(self) -> int:
        return int(self.synthesis.num_ws)

    def style_layers(self) -> list[list[EqualizedLinear]]:
        """The linear maps that read each style, by its index 0..num_ws - 1."""
        readers: list[list[EqualizedLinear]] = self.synthesis.style_layers()
        return readers

    def mapping(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        track_mean: bool = True,
    ) -> Tensor:
        """Latents [batch, z_dim] and labels [batch, c_dim] to styles [batch, num_ws, w_dim]."""
        w = self.mapping_network(z, c, track_mean)
        ws = w.unsqueeze(1).expand(-1, self.num_ws, -1)
        return truncate(ws, self.mapping_network.w_avg, truncation_psi, truncation_cutoff)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
    ) -> Tensor:
        """Generate images.

        Args:
            z: Latents, standard normal, [batch, z_dim].
            c: Labels, usually one-hot, [batch, c_dim]; ignored by an unconditional generator.
            truncation_psi: 1 = full variety, 0 = the mean image.
            truncation_cutoff: Number of styles to truncate, from the first; None = all.
            noise_mode: random, const or none.

        Returns:
            [batch, img_channels, img_height, img_width], about -1..1, not clipped.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        images: Tensor = self.synthesis(ws, noise_mode=noise_mode)
        return images
