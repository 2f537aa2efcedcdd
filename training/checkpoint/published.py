"""Imports networks of the published program: configuration from constructor arguments, weights by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint.published_pickle import PublishedFileError, PublishedModule, read_published
from training.config import DataConfig, DatasetSpec, DiscriminatorConfig, GeneratorConfig, RunConfig

_MAX_PATH = 4096  # characters; longer text is not a path


def import_published(path: str | Path) -> tuple[RunConfig, DatasetSpec, dict[str, Any]]:
    """Configuration, image format and state dicts of a published checkpoint, as `read_snapshot` returns them.

    Raises PublishedFileError, also for networks that are not Styleformers.
    """
    content = read_published(path)
    try:
        kwargs = content["G_ema"].init_kwargs
        size = kwargs["img_resolution"]
        spec = DatasetSpec(size, size, kwargs["img_channels"], kwargs["c_dim"])
        config = RunConfig(
            preset="published",
            data=data_config(content.get("training_set_kwargs")),
            generator=generator_config(content["G_ema"]),
            discriminator=discriminator_config(content["D"]),
        )
        config.generator.check(spec)
        values: dict[str, Any] = {"cur_nimg": 0}
        for name in ("G", "G_ema"):
            values[name] = generator_weights(dict(content[name].tensors()), config.generator, spec)
        values["D"] = discriminator_weights(dict(content["D"].tensors()), config.discriminator, spec)
    except PublishedFileError as error:
        raise PublishedFileError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PublishedFileError(f"{path}: its networks cannot be read as a Styleformer ({error})") from error
    return config, spec, values


def data_config(kwargs: Any) -> DataConfig:
    """The training set, from the plain values among the arguments of its data set.

    A subset is not taken over: it was drawn differently.
    """
    known = kwargs if isinstance(kwargs, dict) else {}
    path = known.get("path")
    if not (isinstance(path, str) and path.isprintable() and len(path) < _MAX_PATH):
        path = ""
    return DataConfig(path, cond=known.get("use_labels") is True, mirror=known.get("xflip") is True)


def generator_config(module: PublishedModule) -> GeneratorConfig:
    """The configuration of a published generator; raises PublishedFileError for another kind of network."""
    kwargs = module.init_kwargs
    synthesis = kwargs.get("synthesis_kwargs", {})
    if "G_dict" not in synthesis:
        raise PublishedFileError(
            f"its generator ({module.class_name} with {', '.join(synthesis) or 'no synthesis arguments'}) is not a "
            f"Styleformer, but a network of another program, such as StyleGAN2"
        )
    mapping = kwargs.get("mapping_kwargs", {})
    return GeneratorConfig(
        widths=tuple(synthesis["G_dict"][: len(synthesis["num_layers"])]),
        layers=tuple(synthesis["num_layers"]),
        head_width=synthesis["depth"],
        minimum_heads=synthesis["minimum_head"],
        linformer=bool(synthesis["linformer"]),
        z_dim=kwargs["z_dim"],
        w_dim=kwargs["w_dim"],
        mapping_layers=mapping.get("num_layers", 8),
        clamp=synthesis.get("conv_clamp"),
    )


def discriminator_config(module: PublishedModule) -> DiscriminatorConfig:
    kwargs = module.init_kwargs
    return DiscriminatorConfig(
        architecture=kwargs.get("architecture", "resnet"),
        channel_base=kwargs.get("channel_base", 32768),
        channel_max=kwargs.get("channel_max", 512),
        mbstd_group=kwargs.get("epilogue_kwargs", {}).get("mbstd_group_size", 4),
        mapping_layers=kwargs.get("mapping_kwargs", {}).get("num_layers", 8),
        clamp=kwargs.get("conv_clamp"),
    )


def generator_weights(published: Mapping[str, Tensor], config: GeneratorConfig, spec: DatasetSpec) -> dict[str, Tensor]:
    weights = {f"mapping_network.{a}": b for a, b in mapping_weights(published, config.mapping_layers).items()}
    weights["mapping_network.w_avg"] = published["mapping.w_avg"]
    for index, (size, num_layers) in enumerate(zip(spec.stage_sizes, config.layers, strict=True)):
        for j in range(num_layers):
            block = f"synthesis.b{max(size)}_{j}."
            layer = f"synthesis.stages.{index}.layers.{j}."
            enc = {name: published[f"{block}enc.{name}"] for name in ("noise_const", "noise_strength", "bias")}
            enc["qvk_weight"] = torch.cat([published[f"{block}enc.{name}_weight"] for name in "qvk"])
            enc["out_weight"] = published[f"{block}enc.w_weight"]
            enc["skip_weight"] = published[f"{block}enc.u_weight"]
            enc["affine.weight"] = published[f"{block}enc.affine1.weight"]
            enc["affine.bias"] = published[f"{block}enc.affine1.bias"]
            if config.is_projected(size[0] * size[1]):
                enc["proj_weight"] = published[f"{block}proj_weight"]
            weights |= {layer + name: value for name, value in enc.items()}
        first, last = f"synthesis.b{max(size)}_0.", f"synthesis.b{max(size)}_{num_layers - 1}."
        weights[f"synthesis.stages.{index}.pos_embedding"] = published[first + "pos_embedding"]
        for name in ("affine.weight", "affine.bias", "weight", "bias"):
            weights[f"synthesis.stages.{index}.to_rgb.{name}"] = published[f"{last}torgb.{name}"]
        if index == 0:
            weights["synthesis.const"] = published[first + "const"]
    weights["synthesis.const"] = weights["synthesis.const"].reshape(-1, config.widths[0])
    return weights


def discriminator_weights(
    published: Mapping[str, Tensor], config: DiscriminatorConfig, spec: DatasetSpec
) -> dict[str, Tensor]:
    names = {"fromrgb": "from_rgb", "conv0": "conv0", "conv1": "conv1", "skip": "skip"}
    places = [
        (f"b{max(size)}.{theirs}", f"blocks.{index}.{ours}")
        for index, size in enumerate(reversed(spec.stage_sizes))
        for theirs, ours in names.items()
    ]
    end = max(spec.stage_sizes[0]) // 2
    places += [(f"b{end}.{theirs}", f"epilogue.{ours}") for theirs, ours in names.items()]
    places += [(f"b{end}.{name}", f"epilogue.{name}") for name in ("conv", "fc", "out")]
    weights = renamed(published, places)
    if spec.label_dim > 0:
        mapping = mapping_weights(published, config.mapping_layers)
        weights |= {f"mapping_network.{name}": value for name, value in mapping.items()}
    return weights


def mapping_weights(published: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The linear layers of a mapping network under our names."""
    return renamed(
        published, [(f"mapping.fc{i}", f"layers.{i}") for i in range(num_layers)] + [("mapping.embed", "embed")]
    )


def renamed(published: Mapping[str, Tensor], places: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Weights and biases of layers, where they have them, given each layer's name there and here."""
    return {
        f"{ours}.{kind}": published[f"{theirs}.{kind}"]
        for theirs, ours in places
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in published
    }
