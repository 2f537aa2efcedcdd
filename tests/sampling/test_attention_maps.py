"""The attention shown is the one that the layers compute."""

import pytest
import torch
from torch import Tensor, nn

from sampling.attention_maps import attention_maps, attention_rows, encoder_layers, token_at, token_weights
from training.config import DatasetSpec, GeneratorConfig
from training.networks.attention import EncoderLayer
from training.networks.generator import Generator
from training.networks.hybrid import HybridConfig, HybridGenerator


def make_layer(linformer: bool, heads: int) -> EncoderLayer:
    config = GeneratorConfig(
        widths=(16,), layers=(1,), minimum_heads=heads, w_dim=12, linformer=linformer, linformer_tokens=10,
        linformer_from_px=4,
    )  # fmt: skip
    return EncoderLayer(config, num_tokens=40, width=16, out_width=8).requires_grad_(False)


def mixed_by(layer: EncoderLayer, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The values of all tokens and what the fast path mixes from them."""
    factors = layer.factors(w, x.dtype)
    return layer.attend(nn.functional.layer_norm(x * factors.style, [layer.width]), factors)


@pytest.mark.parametrize("linformer", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_rows_sum_to_one_and_mix_what_the_fast_path_mixes(linformer: bool, heads: int) -> None:
    torch.manual_seed(0)
    layer = make_layer(linformer, heads)
    x, w = 3 * torch.randn(2, 40, 16), torch.randn(2, 12)
    rows = attention_rows(layer, x, w, range(40))
    assert rows.shape == (2, heads, 40, 10 if linformer else 40)
    torch.testing.assert_close(rows.sum(dim=3), torch.ones(2, heads, 40))
    assert rows.amax() > 2 / rows.shape[3]  # not merely uniform
    value, mixed = mixed_by(layer, x, w)
    shown = (token_weights(layer, rows) @ layer.split_heads(value)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(shown, mixed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linformer", [False, True])
def test_maps_of_an_image_that_is_not_square(linformer: bool) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig(
        widths=(32, 16, 16), layers=(1, 2, 1), head_width=8, z_dim=8, w_dim=12, linformer=linformer, linformer_tokens=20
    )
    generator = Generator(config, DatasetSpec(32, 64, 1)).eval().requires_grad_(False)
    ws = generator.mapping(torch.randn(1, 8))
    points = [(0, 0), (31, 63), (20, 40)]
    maps, image = attention_maps(generator, ws, points, [3, 0, 2])
    torch.testing.assert_close(image, generator.synthesis(ws, noise_mode="const"))
    assert [found.layer for found in maps] == [3, 0, 2]
    assert [list(found.weights.shape) for found in maps] == [[2, 3, 32, 64], [4, 3, 8, 16], [2, 3, 16, 32]]
    assert [found.is_projected for found in maps] == [linformer, False, False]
    for found in maps:
        torch.testing.assert_close(found.shares.sum(dim=(2, 3)), torch.ones(found.shares.shape[:2]))
        assert found.shares.amin() >= 0
        if not found.is_projected:
            torch.testing.assert_close(found.shares, found.weights)
    assert not any(layer._forward_pre_hooks for layer, _ in encoder_layers(generator))


def test_a_token_that_all_queries_seek_gets_all_attention() -> None:
    """Queries and keys made of one channel: its largest value wins everywhere."""
    layer = make_layer(False, 1)
    layer.qvk_weight.zero_()
    layer.qvk_weight[0, 0] = layer.qvk_weight[32, 0] = 1  # queries and keys
    layer.affine.weight.zero_()
    x = torch.zeros(1, 40, 16)
    x[:, :, 0] = 1
    x[:, :, 1] = -1
    x[0, 11, 0], x[0, 11, 1] = 5, 0
    rows = attention_rows(layer, x, torch.zeros(1, 12), [0, 25])
    assert rows.argmax(dim=3).tolist() == [[[11, 11]]]


def test_points_belong_to_the_token_that_covers_them() -> None:
    assert token_at((3, 3), (32, 64), (8, 16)) == 0
    assert token_at((4, 8), (32, 64), (8, 16)) == 16 + 2
    assert token_at((31, 63), (32, 64), (8, 16)) == 8 * 16 - 1


def test_layers_below_convolutions_have_maps() -> None:
    config = HybridConfig(widths=(16,), layers=(2,), head_width=8, z_dim=8, w_dim=12, channel_max=8, attention_to_px=8)
    generator = HybridGenerator(config, DatasetSpec(32, 32, 3)).eval().requires_grad_(False)
    ws = generator.mapping(torch.randn(1, 8))
    maps, image = attention_maps(generator, ws, [(31, 31)], [0, 1])
    assert image.shape == (1, 3, 32, 32) and [found.weights.shape[2:] for found in maps] == [(8, 8)] * 2
