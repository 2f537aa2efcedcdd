"""The generator equals the published one: images, slices, gradients, path lengths."""

import functools

import pytest
import torch
from golden_data import relative_error
from recorded_networks import recorded_generator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.losses.functions import path_lengths
from training.networks.attention import EncoderLayer
from training.networks.generator import Generator, image_to_tokens, tokens_to_image, upsample

IMAGE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

load = functools.cache(recorded_generator)
both = pytest.mark.parametrize("name", ["gen_A", "gen_B"])


def fresh(name: str) -> tuple[Generator, dict[str, Tensor]]:
    network, data = load(name)
    network.zero_grad()
    return network, data


def published_gradient(network: Generator, name: str) -> Tensor:
    """The gradient of one of our parameters under its published name."""
    parts = name.split(".")
    if parts[0] == "mapping":
        return network.mapping_network.layers[int(parts[1].removeprefix("fc"))].weight.grad
    size, j = (int(number) for number in parts[1].removeprefix("b").split("_"))
    sizes = [stage.size[0] for stage in network.synthesis.stages]
    stage = network.synthesis.stages[sizes.index(size)]
    layer, rest = stage.layers[j], ".".join(parts[2:])
    qvk = {"enc.q_weight": 0, "enc.v_weight": 1, "enc.k_weight": 2}
    if rest in qvk:
        return layer.qvk_weight.grad.chunk(3)[qvk[rest]]
    ours = {
        "enc.u_weight": layer.skip_weight,
        "enc.w_weight": layer.out_weight,
        "enc.affine1.weight": layer.affine.weight,
        "enc.bias": layer.bias,
        "enc.noise_strength": layer.noise_strength,
        "proj_weight": layer.proj_weight,
        "torgb.weight": stage.to_rgb.weight,
        "const": network.synthesis.const,
    }
    return ours[rest].grad


@both
def test_styles(name: str) -> None:
    network, data = load(name)
    for key, arguments in {"psi1": (), "psi0.7": (0.7,), "psi0.7_cutoff2": (0.7, 2)}.items():
        ws = network.mapping(data["z"], data["c"], *arguments)
        assert relative_error(ws, data[f"ws_{key}"][:, : network.num_ws]) < IMAGE_TOLERANCE


@both
@pytest.mark.parametrize("noise_mode", ["none", "const"])
@pytest.mark.parametrize("psi", [1, 0.7])
def test_images(name: str, noise_mode: str, psi: float) -> None:
    network, data = load(name)
    key = f"img_psi{psi}_{noise_mode}"
    if key not in data:
        assert (name, key) == ("gen_B", "img_psi0.7_none")  # the only one that was not recorded
        return
    image = network(data["z"], data["c"], truncation_psi=psi, noise_mode=noise_mode)
    assert relative_error(image, data[key]) < IMAGE_TOLERANCE


def test_mixed_styles() -> None:
    network, data = load("gen_A")
    image = network.synthesis(data["ws_mixed"][:, : network.num_ws], noise_mode="const")
    assert relative_error(image, data["img_mixed_const"]) < IMAGE_TOLERANCE


def test_clamp() -> None:
    network, data = recorded_generator("gen_A")
    for layer in network.modules():
        if isinstance(layer, EncoderLayer):
            layer.clamp = 0.5
    image = network(data["z"], noise_mode="const")
    assert relative_error(image, data["img_psi1_const_clamp0.5"]) < IMAGE_TOLERANCE


@both
def test_blocks(name: str) -> None:
    """Features after every layer, those of a stage's last layer after the 2x up-sampling; images after every stage."""
    network, data = load(name)
    ws = network.mapping(data["z"], data["c"])
    x, image, first = network.synthesis.const.expand(2, -1, -1), None, 0
    for stage in network.synthesis.stages:
        x = x + stage.pos_embedding
        for j, layer in enumerate(stage.layers):
            x = layer(x, ws[:, first + j], "const")
            block = f"block_b{stage.size[0]}_{j}"
            is_last = j == len(stage.layers) - 1
            shown = x
            if is_last:
                rgb = tokens_to_image(stage.to_rgb(x, ws[:, first + len(stage.layers)]), stage.size)
                image = rgb if image is None else upsample(image) + rgb
                assert relative_error(image_stats(image), data[f"{block}_img_stats"]) < GRADIENT_TOLERANCE
                if stage is not network.synthesis.stages[-1]:
                    shown = x = image_to_tokens(upsample(tokens_to_image(x, stage.size)))
            assert relative_error(shown[:, :8, :8], data[f"{block}_x_slice"]) < IMAGE_TOLERANCE
            stats = torch.stack([shown.mean(), shown.std(), shown.abs().max()])
            assert relative_error(stats, data[f"{block}_x_stats"]) < GRADIENT_TOLERANCE
        first += len(stage.layers)


def image_stats(image: Tensor) -> Tensor:
    return torch.stack([image.mean(), image.std()])


@both
def test_running_mean_of_w(name: str) -> None:
    network, data = recorded_generator(name)
    network.train()
    network.mapping(data["z"], data["c"])
    network.mapping_network.update_w_avg()
    assert relative_error(network.mapping_network.w_avg, data["w_avg_after_train_fwd"]) < IMAGE_TOLERANCE


@both
@pytest.mark.parametrize("noise_mode", ["none", "const"])
def test_gradients(name: str, noise_mode: str) -> None:
    network, data = fresh(name)
    z = data["z"].clone().requires_grad_()
    loss = network(z, data["c"], noise_mode=noise_mode).square().mean()
    loss.backward()
    assert relative_error(loss, data[f"loss_{noise_mode}"]) < IMAGE_TOLERANCE
    assert relative_error(z.grad, data[f"grad_{noise_mode}:z"]) < GRADIENT_TOLERANCE
    norm = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    assert relative_error(norm, data[f"gradnorm_{noise_mode}:all_params"]) < GRADIENT_TOLERANCE
    names = [key for key in data if key.startswith(f"grad_{noise_mode}:synthesis") or key.endswith("fc0.weight")]
    assert len(names) >= 2
    for key in names:
        prefix, _, parameter = key.partition(":")
        if prefix != f"grad_{noise_mode}":
            continue
        gradient = published_gradient(network, parameter.removesuffix("[:4]"))
        recorded = data[key]
        gradient = gradient[:4] if parameter.endswith("[:4]") else gradient
        assert relative_error(gradient.reshape(recorded.shape), recorded) < GRADIENT_TOLERANCE, key


def test_gradient_norms_of_the_projections() -> None:
    network, data = fresh("gen_B")
    network(data["z"], data["c"], noise_mode="const").square().mean().backward()
    for name in ("synthesis.b32_0.proj_weight", "synthesis.b32_1.proj_weight"):
        norm = published_gradient(network, name).norm()
        assert relative_error(norm, data[f"gradnorm_const:{name}"]) < GRADIENT_TOLERANCE


@both
def test_path_length_has_the_published_second_derivatives(name: str) -> None:
    """The published ws have surplus rows that nothing reads; lengths average over all of them, so ours are longer."""
    network, data = fresh(name)
    ws = network.mapping(data["z"], data["c"]).detach().requires_grad_()
    height, width = data["pl_noise"].shape[2:]
    with sdpa_kernel(SDPBackend.MATH):
        image = network.synthesis(ws, noise_mode="const")
        lengths = path_lengths(image, ws, data["pl_noise"] * (height * width) ** 0.5)
        lengths.square().sum().backward()
    share = network.num_ws / data["pl_dws"].shape[1]
    assert relative_error(lengths * share**0.5, data["pl_lengths"]) < IMAGE_TOLERANCE
    assert relative_error(ws.grad * share, data["pl_dws"][:, : network.num_ws]) < GRADIENT_TOLERANCE
    assert data["pl_dws"][:, network.num_ws :].abs().max() == 0
    key = "synthesis.b8_0.enc.q_weight"
    assert relative_error(published_gradient(network, key) * share, data[f"pl_grad:{key}"]) < GRADIENT_TOLERANCE
