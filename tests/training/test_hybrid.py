"""The hybrid generator: modulated convolutions against explicit weights per sample, and everything a generator does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import train
from torch import Tensor

from dnnlib.dataclass_values import ConfigError, override
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from training.checkpoint.snapshot import load_generator
from training.config import DatasetSpec, GeneratorConfig, RunConfig
from training.networks.hybrid import HybridConfig, HybridGenerator, ModulatedConv2d
from training.networks.layers import RESAMPLE_TAPS
from training.presets import preset

SMALL = {"head_width": 8, "z_dim": 8, "w_dim": 16, "channel_base": 256, "channel_max": 16}


def explicit(layer: ModulatedConv2d, x: Tensor, w: Tensor) -> Tensor:
    """The layer with one weight per sample, in a grouped convolution (StyleGAN2, equations 1 and 3)."""
    style = layer.affine(w)
    weight = layer.weight * layer.weight_gain * style[:, None, :, None, None]
    weight = weight / (weight.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).sqrt()
    batch, out_channels = weight.shape[:2]
    if layer.up == 2:  # insert zeros, convolve, smooth with four times the gain
        f = setup_filter(RESAMPLE_TAPS).to(x)
        x = upfirdn2d(x, f, up=2, padding=[3, 2, 3, 2], gain=4)
    x = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=2 - layer.up, groups=batch)
    x = x.view(batch, out_channels, *x.shape[2:]) + layer.noise_strength * layer.noise_const
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * 2**0.5


def layer_of(up: int, dtype: torch.dtype) -> tuple[ModulatedConv2d, Tensor, Tensor]:
    torch.manual_seed(0)
    layer = ModulatedConv2d(6, 5, 4, (8 * up, 6 * up), up).to(dtype)
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    return layer, torch.randn(3, 5, 8, 6, dtype=dtype), torch.randn(3, 6, dtype=dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("up", [1, 2])
def test_modulated_convolution_equals_weights_per_sample(up: int, dtype: torch.dtype, tolerance: float) -> None:
    layer, x, w = layer_of(up, dtype)
    inputs = [x.requires_grad_(), w.requires_grad_(), *layer.parameters()]
    results = []
    for y in (layer(x, w, "const"), explicit(layer, x, w)):
        results.append((y, torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), inputs)))
    (ours, our_grads), (theirs, their_grads) = results
    assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()
    for ours, theirs in zip(our_grads, their_grads, strict=True):
        assert (ours - theirs).abs().max() < 10 * tolerance * theirs.abs().max()


@pytest.mark.parametrize("up", [1, 2])
def test_derivatives(up: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(3, 2, 2, (3 * up, 2 * up), up).double()
    inputs = (torch.randn(2, 2, 3, 2).double().requires_grad_(), torch.randn(2, 3).double().requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: layer(x, w, "const"), inputs)
    assert torch.autograd.gradgradcheck(lambda x, w: layer(x, w, "const"), inputs)


def test_no_weight_per_sample_is_stored() -> None:
    layer, x, w = layer_of(1, torch.float32)
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        layer(x.requires_grad_(), w.requires_grad_(), "const").sum().backward()
    assert shapes and not [shape for shape in shapes if len(shape) == 5]


@pytest.mark.parametrize(("height", "width", "channels"), [(64, 64, 3), (128, 64, 1), (32, 32, 3)])
def test_shapes_and_styles(height: int, width: int, channels: int) -> None:
    spec = DatasetSpec(height, width, channels, label_dim=2)
    config = HybridConfig(widths=(32, 16, 16), layers=(1, 2, 1), **SMALL)
    attending = config.split(spec)[0]
    config = replace(config, widths=config.widths[: len(attending)], layers=config.layers[: len(attending)])
    G = HybridGenerator(config, spec).eval()
    assert G(torch.randn(2, 8), torch.eye(2), noise_mode="const").shape == (2, channels, height, width)
    assert len(G.style_layers()) == G.num_ws and all(G.style_layers())
    ws = G.mapping(torch.randn(1, 8), torch.eye(2)[:1]).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(G.synthesis(ws, noise_mode="const").square().sum(), ws)
    assert (gradient.abs().sum(dim=2) > 0).all()  # every style changes the image


def test_recomputed_stages_change_nothing() -> None:
    G = HybridGenerator(
        HybridConfig(widths=(16, 16), layers=(1, 1), attention_to_px=16, **SMALL), DatasetSpec(64, 64, 3)
    )
    grads = []
    for stages in (0, 1, 3):
        torch.manual_seed(0)
        ws = torch.randn(2, G.num_ws, 16)
        G.zero_grad()
        G.synthesis(ws, recomputed_stages=stages, noise_mode="const").square().sum().backward()
        grads.append([p.grad for p in G.synthesis.parameters()])
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture
def hybrid_config(tiny_config: RunConfig) -> RunConfig:
    """The tiny run with attention at 8 px and convolutions at 16."""
    generator = HybridConfig(widths=(16,), layers=(2,), attention_to_px=8, **SMALL)
    return replace(tiny_config, generator=generator)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_phase_trains(hybrid_config: RunConfig, tiny_data: Path, tmp_path: Path, dtype: str) -> None:
    config = override(override(hybrid_config, "schedule.kimg", "0.016"), "performance.precision", dtype)
    run = train(config, tiny_data, tmp_path / "run")
    G = load_generator(tmp_path / "run" / "network-snapshot-000000.pkl")
    assert isinstance(G, HybridGenerator)
    z = torch.randn(2, 8)
    assert torch.equal(G(z, noise_mode="const"), run.state.G_ema(z, noise_mode="const"))


def test_widths_of_another_generator_are_kept_where_they_fit() -> None:
    for side, widths in ((32, (1024, 256, 64)), (128, (512, 256, 256))):
        spec = DatasetSpec(side, side, 3)
        config = override(preset("auto", spec), "generator.kind", "hybrid").generator.fitted(spec)
        config.check(spec)
        assert config.widths == widths


def test_presets_and_limits() -> None:
    for size in (256, 512, 1024):
        config = preset(f"hybrid{size}", DatasetSpec(size, size // 2, 3))
        config.check(DatasetSpec(size, size // 2, 3))
    assert preset("auto", DatasetSpec(512, 512, 3)).generator.kind == "hybrid"
    with pytest.raises(ConfigError, match=r"512x512 px are too large for attention .* generator.kind=hybrid"):
        GeneratorConfig(widths=(8,) * 7, layers=(1,) * 7).check(DatasetSpec(512, 512, 3))
    with pytest.raises(ConfigError, match="3 attention stages"):
        HybridConfig(widths=(8,), layers=(1,)).check(DatasetSpec(64, 64, 3))
