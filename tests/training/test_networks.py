import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.memory import saved_bytes
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig
from training.losses.functions import discriminator_fake_loss
from training.networks.attention import EncoderLayer
from training.networks.discriminator import Discriminator, minibatch_std
from training.networks.generator import Generator
from training.networks.mapping import truncate
from training.networks.modulation import demodulation, modulated_weights
from training.presets import preset

PLAIN_SAVED_BYTES = 406e6  # per image


def num_parameters(config: GeneratorConfig, spec: DatasetSpec) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Generator(config, spec).parameters())


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (preset("cifar", DatasetSpec(32, 32, 3)).generator, 32, 18_369_040),
        (preset("stl10", DatasetSpec(48, 48, 3)).generator, 48, 7_966_096),
        (preset("celeba64", DatasetSpec(64, 64, 3)).generator, 64, 8_567_505),
        (preset("church128", DatasetSpec(128, 128, 3)).generator, 128, 13_929_621),
    ],
)
def test_published_parameter_counts(config: GeneratorConfig, size: int, expected: int) -> None:
    assert num_parameters(config, DatasetSpec(size, size, 3)) == expected


def test_demodulation_and_its_derivatives_equal_weights_per_sample() -> None:
    style = torch.randn(2, 3, 6).double().requires_grad_()  # of two layers with two weights each
    weights = [torch.randn(4, 6).double().requires_grad_() for _ in range(4)]

    def plain(style: Tensor, *weights: Tensor) -> Tensor:
        stacked = torch.stack(weights).unflatten(0, (2, 2)).flatten(1, 2)
        return ((stacked.unsqueeze(1) * style.unsqueeze(2)).square().sum(dim=3) + 1e-8).rsqrt()

    torch.testing.assert_close(demodulation(style, weights), plain(style, *weights))
    weight = torch.randn(2, 3, 8).double()
    derivatives = []
    for function in (lambda style, *weights: demodulation(style, weights), plain):
        first = torch.autograd.grad(function(style, *weights), [style, *weights], weight, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), [style, *weights])
        derivatives.append([*first, *second])
    for actual, expected in zip(*derivatives, strict=True):
        torch.testing.assert_close(actual, expected)


def test_modulated_weights_have_rows_of_unit_length() -> None:
    style, weights = torch.randn(2, 5, 6).double(), [torch.randn(3, 6).double() for _ in range(2)]
    modulated = modulated_weights(style, weights)
    assert modulated.shape == (2, 5, 3, 6)
    torch.testing.assert_close(modulated.square().sum(dim=3), torch.ones(2, 5, 3).double())
    torch.testing.assert_close(modulated[1, 2], F.normalize(weights[1] * style[1, 2], dim=1))


def plain_layer(layer: EncoderLayer, x: Tensor, w: Tensor) -> Tensor:
    """The encoder layer as the paper writes it: head by head, weights per sample, explicit attention matrix."""

    s1, s2 = layer.affine(w).chunk(2, dim=1)
    q_weight, v_weight, k_weight = layer.qvk_weight.chunk(3)
    x = x * s1[:, None]
    x = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    query, key, value = (x @ m.T * demodulation_of(m, s1)[:, None] for m in (q_weight, k_weight, v_weight))
    value = value * s2[:, None]
    skip = value @ layer.skip_weight.T * demodulation_of(layer.skip_weight, s2)[:, None]
    if layer.proj_weight is not None:
        key, value = layer.proj_weight @ key, layer.proj_weight @ value
    heads = []
    for q, k, v in zip(*(t.chunk(layer.num_heads, dim=2) for t in (query, key, value)), strict=True):
        heads.append((q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(dim=2) @ v)
    y = torch.cat(heads, dim=2) @ layer.out_weight.T * demodulation_of(layer.out_weight, s2)[:, None] + skip
    y = y + layer.noise_strength * layer.noise_const + layer.bias
    return F.leaky_relu(y, 0.2).clamp(-256, 256)


def demodulation_of(weight: Tensor, style: Tensor) -> Tensor:
    return 1 / ((weight * style[:, None]).square().sum(2) + 1e-8).sqrt()


def plain_upsample(x: Tensor) -> Tensor:
    """Zeros inserted, then the [1, 3, 3, 1] filter with gain 4."""
    batch, channels, height, width = x.shape
    inserted = torch.zeros(batch, channels, 2 * height, 2 * width, dtype=x.dtype)
    inserted[:, :, ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 4
    return F.conv2d(F.pad(inserted, [2, 1, 2, 1]), torch.outer(taps, taps).expand(channels, 1, 4, 4), groups=channels)


def plain_generator(network: Generator, z: Tensor) -> Tensor:
    """The whole synthesis as the paper draws it, stage by stage."""
    w = network.mapping(z)[:, 0]
    x, image = network.synthesis.const.expand(len(z), -1, -1), None
    for stage in network.synthesis.stages:
        height, width = stage.size
        if image is not None:
            grid = x.transpose(1, 2).reshape(len(z), -1, height // 2, width // 2)
            x = plain_upsample(grid).flatten(2).transpose(1, 2)
        x = x + stage.pos_embedding
        for layer in stage.layers:
            x = plain_layer(layer, x, w)
        style = stage.to_rgb.affine(w)
        rgb = (x * style[:, None]) @ stage.to_rgb.weight.T * demodulation_of(stage.to_rgb.weight, style)[:, None]
        rgb = (rgb + stage.to_rgb.bias).transpose(1, 2).reshape(len(z), -1, height, width)
        image = rgb if image is None else plain_upsample(image) + rgb
    return image


@pytest.mark.parametrize(
    ("size", "start"), [((48, 48), (12, 12)), ((64, 64), (8, 8)), ((64, 96), (8, 12)), ((28, 28), (14, 14))]
)
def test_whole_generator_equals_the_paper(size: tuple[int, int], start: tuple[int, int]) -> None:
    """Starts of other sizes, images that are not square, and Linformer above 32 px."""
    spec = DatasetSpec(*size, 3)
    assert spec.stage_sizes[0] == start
    stages = len(spec.stage_sizes)
    config = GeneratorConfig(widths=(16,) * stages, layers=(1,) * (stages - 1) + (2,), head_width=8, z_dim=8, w_dim=12,
                             linformer=True, linformer_tokens=20)  # fmt: skip
    network = Generator(config, spec).double().eval()
    projected = [layer.proj_weight is not None for stage in network.synthesis.stages for layer in stage.layers]
    assert any(projected) == (size[0] > 32)
    for name, parameter in network.named_parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.3)
        assert parameter.abs().max() > 0, name
    z = torch.randn(2, 8).double()
    torch.testing.assert_close(network(z, noise_mode="const"), plain_generator(network, z))


@pytest.mark.parametrize("label_dim", [0, 3])
def test_double_precision_agrees_with_single(label_dim: int) -> None:
    """No hidden casts: a float64 run is within 1e-5 of the largest value of the float32 one."""
    spec = DatasetSpec(64, 64, 3, label_dim)
    generator = Generator(GeneratorConfig(widths=(64, 32, 32, 16), layers=(1, 1, 1, 1), linformer=True), spec).eval()
    discriminator = Discriminator(DiscriminatorConfig(channel_base=512, channel_max=32), spec).eval()
    z, c = torch.randn(4, 512), torch.eye(3)[torch.arange(4) % 3] if label_dim else None
    image = generator(z, c, noise_mode="const")
    logits = discriminator(image, c)
    wide_c = None if c is None else c.double()
    wide_image = generator.double()(z.double(), wide_c, noise_mode="const")
    wide_logits = discriminator.double()(image.double(), wide_c)
    assert wide_image.dtype == wide_logits.dtype == torch.float64
    assert (image - wide_image).abs().max() < 1e-5 * wide_image.abs().max()
    assert (logits - wide_logits).abs().max() < 1e-5 * wide_logits.abs().max()


def test_seeded_images_and_noise_modes(tiny_spec: DatasetSpec) -> None:
    network = Generator(GeneratorConfig(widths=(32, 16), layers=(1, 1)), tiny_spec).eval()
    for stage in network.synthesis.stages:
        for layer in stage.layers:
            nn.init.ones_(layer.noise_strength)
    z = torch.randn(2, 512)
    assert torch.equal(network(z, noise_mode="const"), network(z, noise_mode="const"))
    assert not torch.equal(network(z, noise_mode="random"), network(z, noise_mode="random"))
    assert not torch.allclose(network(z, noise_mode="none"), network(z, noise_mode="const"))
    with pytest.raises(ValueError, match="noise_mode"):
        network(z, noise_mode="loud")


def test_truncation() -> None:
    ws, w_avg = torch.randn(2, 5, 4), torch.randn(4)
    assert torch.equal(truncate(ws, w_avg, 1.0, None), ws)
    assert torch.equal(truncate(ws, w_avg, 0.0, None), w_avg.expand_as(ws))
    cut = truncate(ws, w_avg, 0.5, 2)
    torch.testing.assert_close(cut[:, :2], (ws[:, :2] + w_avg) / 2)
    assert torch.equal(cut[:, 2:], ws[:, 2:])


@pytest.mark.parametrize(("size", "channels"), [((24, 24), 1), ((16, 24), 3), ((24, 16), 1)])
def test_shapes_for_any_image(size: tuple[int, int], channels: int) -> None:
    spec = DatasetSpec(*size, channels, label_dim=4)
    stages = len(spec.stage_sizes)
    generator = Generator(GeneratorConfig(widths=(32,) * stages, layers=(1,) * stages), spec)
    discriminator = Discriminator(DiscriminatorConfig(channel_base=128, channel_max=16), spec)
    c = torch.eye(4)
    images = generator(torch.randn(4, 512), c)
    assert images.shape == (4, channels, *size)
    assert discriminator(images, c).shape == (4, 1)


@pytest.mark.parametrize("architecture", ["orig", "resnet", "skip"])
@pytest.mark.parametrize("label_dim", [0, 3])
def test_gradients_reach_every_parameter(architecture: str, label_dim: int) -> None:
    spec = DatasetSpec(16, 16, 3, label_dim)
    generator = Generator(
        GeneratorConfig(widths=(32, 32), layers=(1, 2), linformer=True, linformer_tokens=8, linformer_from_px=16), spec
    )
    discriminator = Discriminator(DiscriminatorConfig(architecture, channel_base=128, channel_max=16), spec)
    c = torch.eye(3)[torch.arange(4) % 3] if label_dim else None
    discriminator_fake_loss(discriminator(generator(torch.randn(4, 512), c), c)).mean().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("group", [2, 4, 8])
def test_minibatch_std_compares_strided_groups(group: int) -> None:
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    channel = minibatch_std(x, group)[:, 3]
    for i in range(8):
        members = x[i % (8 // group) :: 8 // group]
        assert len(members) == group
        expected = (members.var(dim=0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(channel[i], expected.expand(4, 4))


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet", ["from_rgb", "conv0", "conv1", "skip", "conv0", "conv1", "skip"]),
        ("skip", ["from_rgb", "conv0", "conv1", "from_rgb", "conv0", "conv1"]),
        ("orig", ["from_rgb", "conv0", "conv1", "conv0", "conv1"]),
    ],
)
def test_frozen_layers_are_counted_as_in_stylegan2_ada(architecture: str, expected: list[str]) -> None:
    D = Discriminator(DiscriminatorConfig(architecture, channel_base=128, channel_max=16), DatasetSpec(16, 16, 3))
    names = {module: name for name, module in D.named_modules()}
    order = [names[layer].split(".") for layer in D.layers_from_image()]
    assert [name for *_, name in order] == expected
    assert [block for _, block, _ in order] == sorted(block for _, block, _ in order)


def test_training_pass_stores_little() -> None:
    """At most 0.38 of the plain formulation of the cifar preset, with its weights per sample and attention matrices."""
    network = Generator(preset("cifar", DatasetSpec(32, 32, 3)).generator, DatasetSpec(32, 32, 3))
    z = torch.randn(2, network.z_dim)
    assert saved_bytes(network, lambda: network(z)) / 2 < 0.38 * PLAIN_SAVED_BYTES
