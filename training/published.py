"""The published program's names for weights, translated to ours."""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig


def generator_weights(published: Mapping[str, Tensor], config: GeneratorConfig, spec: DatasetSpec) -> dict[str, Tensor]:
    """The state dict of our Generator from the published one's tensors by name."""
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
    """The state dict of our Discriminator from the published one's tensors by name."""
    names = {"fromrgb": "from_rgb", "conv0": "conv0", "conv1": "conv1", "skip": "skip"}
    places = [
        (f"b{max(size)}.{theirs}", f"blocks.{index}.{ours}")
        for index, size in enumerate(reversed(spec.stage_sizes))
        for theirs, ours in names.items()
    ]
    end = max(spec.stage_sizes[0]) // 2
    places += [(f"b{end}.{theirs}", f"epilogue.{ours}") for theirs, ours in names.items()]
    places += [(f"b{end}.{name}", f"epilogue.{name}") for name in ("conv", "fc", "out")]
    weights = {
        f"{target}.{kind}": published[f"{source}.{kind}"]
        for source, target in places
        for kind in ("weight", "bias")
        if f"{source}.{kind}" in published
    }
    if spec.label_dim > 0:
        mapping = mapping_weights(published, config.mapping_layers)
        weights |= {f"mapping_network.{name}": value for name, value in mapping.items()}
    return weights


def mapping_weights(published: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The linear layers of a mapping network under our names."""
    places = [(f"mapping.fc{i}", f"layers.{i}") for i in range(num_layers)] + [("mapping.embed", "embed")]
    return {
        f"{target}.{kind}": published[f"{source}.{kind}"]
        for source, target in places
        for kind in ("weight", "bias")
        if f"{source}.{kind}" in published
    }
