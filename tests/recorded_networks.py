"""The recorded networks as ours."""

from typing import Any

import torch
from golden_data import load

from training.checkpoint.published import discriminator_weights, generator_weights
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


def recorded_generator(name: str) -> tuple[Generator, dict[str, torch.Tensor]]:
    """The generator of a recording in eval mode, and the recorded arrays."""
    recording, params, data = load(name)
    ctor: dict[str, Any] = recording["ctor"]
    synthesis = ctor["synthesis_kwargs"]
    spec = DatasetSpec(ctor["img_resolution"], ctor["img_resolution"], ctor["img_channels"], ctor["c_dim"])
    config = GeneratorConfig(
        widths=tuple(synthesis["G_dict"]),
        layers=tuple(synthesis["num_layers"]),
        head_width=synthesis["depth"],
        minimum_heads=synthesis["minimum_head"],
        linformer=synthesis["linformer"],
        z_dim=ctor["z_dim"],
        w_dim=ctor["w_dim"],
        mapping_layers=ctor["mapping_kwargs"]["num_layers"],
    )
    network = Generator(config, spec).eval()
    network.load_state_dict(generator_weights(tensors(params), config, spec))
    return network, tensors(data)


def recorded_discriminator(name: str) -> tuple[Discriminator, dict[str, torch.Tensor]]:
    """The discriminator of a recording in eval mode, and the recorded arrays."""
    recording, params, data = load(name)
    ctor = recording["ctor"]
    spec = DatasetSpec(ctor["img_resolution"], ctor["img_resolution"], ctor["img_channels"], ctor["c_dim"])
    config = DiscriminatorConfig(
        architecture=ctor["architecture"],
        channel_base=ctor["channel_base"],
        channel_max=ctor["channel_max"],
        mbstd_group=ctor["epilogue_kwargs"]["mbstd_group_size"],
    )
    network = Discriminator(config, spec).eval()
    network.load_state_dict(discriminator_weights(tensors(params), config, spec))
    return network, tensors(data)


def tensors(arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Arrays by name as tensors."""
    return {name: torch.as_tensor(array) for name, array in arrays.items()}
