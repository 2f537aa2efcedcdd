import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import baseline
from benchmarks.timing import saved_bytes
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig
from training.networks.discriminator import Discriminator, minibatch_std
from training.networks.generator import Generator
from training.networks.modulation import demodulation
from training.presets import preset


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("cifar", 32, 18_369_040), ("stl10", 48, 7_966_096), ("celeba64", 64, 8_567_505), ("church128", 128, 13_929_621)],
)
def test_published_parameter_counts(name: str, size: int, expected: int) -> None:
    spec = DatasetSpec(size, size, 3)
    with torch.device("meta"):
        network = Generator(preset(name, spec).generator, spec)
    assert sum(p.numel() for p in network.parameters()) == expected


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


@pytest.mark.parametrize(
    ("size", "start"), [((48, 48), (12, 12)), ((64, 64), (8, 8)), ((64, 96), (8, 12)), ((28, 28), (14, 14))]
)
def test_whole_generator_equals_the_plain_formulation(size: tuple[int, int], start: tuple[int, int]) -> None:
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
    torch.testing.assert_close(network(z, noise_mode="const"), baseline.generator(network, z, noise_mode="const"))


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


def test_recomputed_stages_store_less() -> None:
    spec = DatasetSpec(32, 32, 3)
    G = Generator(preset("cifar", spec).generator, spec)
    ws = torch.randn(2, G.num_ws, G.w_dim)
    plain = saved_bytes(G, lambda: G.synthesis(ws))
    assert saved_bytes(G, lambda: G.synthesis(ws, recomputed_stages=2)) < 0.5 * plain


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
    F.softplus(discriminator(generator(torch.randn(4, 512), c), c)).mean().backward()
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
