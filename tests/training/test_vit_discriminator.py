"""The transformer discriminator."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, train
from torch.nn.attention import SDPBackend, sdpa_kernel

from dnnlib.dataclass_values import ConfigError
from training.checkpoint.snapshot import load_discriminator
from training.config import DatasetSpec, RunConfig
from training.networks.vit_discriminator import VitConfig, VitDiscriminator, rotary_angles, rotate
from training.state import TrainState

SMALL = {"patch_px": 4, "width": 16, "depth": 2, "head_width": 8}


def test_products_of_rotated_queries_and_keys_depend_on_their_offset() -> None:
    angles = rotary_angles(5, 6, 8).double()
    query, key = torch.randn(8).double(), torch.randn(8).double()
    turned = [rotate(x.expand(1, 1, 31, 8), angles)[0, 0, 1:].view(5, 6, 8) for x in (query, key)]
    for y, x in ((0, 0), (1, 2), (2, 3)):
        product = (turned[0][y, x] * turned[1][y + 2, x + 1]).sum()
        torch.testing.assert_close(product, (turned[0][1, 1] * turned[1][3, 2]).sum())
    assert torch.equal(rotate(query.expand(1, 1, 31, 8), angles)[0, 0, 0], query)  # the class token
    assert (turned[0][0, 0] * turned[1][2, 1]).sum() != (turned[0][0, 0] * turned[1][1, 2]).sum()


@pytest.mark.parametrize(("height", "width", "channels", "classes"), [(32, 32, 3, 0), (16, 48, 1, 4)])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_shapes(height: int, width: int, channels: int, classes: int, dtype: torch.dtype | None) -> None:
    D = VitDiscriminator(VitConfig(**SMALL), DatasetSpec(height, width, channels, classes))
    images, labels = torch.randn(3, channels, height, width), torch.eye(max(classes, 1))[[0] * 3][:, :classes]
    logits = D(images, labels, dtype)
    assert logits.shape == (3, 1) and logits.dtype == torch.float32
    assert [tuple(x.shape) for x in D.features(images)] == [(3, 16, height // 4, width // 4)] * 2
    assert len(list(D.layers_from_image())) == 3
    if dtype is None and classes:
        other = D(images, torch.eye(classes)[[1] * 3])
        assert not torch.equal(logits, other)


def test_gradients_of_gradients_with_the_math_backend() -> None:
    D = VitDiscriminator(VitConfig(**SMALL), DatasetSpec(8, 8, 3)).double()
    x = torch.randn(1, 3, 8, 8).double().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradcheck(D, x) and torch.autograd.gradgradcheck(D, x)


def test_learning_rate_falls_with_the_width(tiny_config: RunConfig, tiny_spec: DatasetSpec) -> None:
    rates = []
    for width in (16, 32):
        config = replace(tiny_config, discriminator=VitConfig(**SMALL | {"width": width}))
        config = config.changed(loss={"r1_interval": 10**9})
        rates.append(TrainState(config, tiny_spec, CPU).d.optimizer.param_groups[0]["lr"])
    assert rates[0] == 2 * rates[1] == pytest.approx(2e-4 * 768 / 16)


def test_unsuitable_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"patch_px=5 does not divide images of 16x32"):
        VitConfig(patch_px=5).check(DatasetSpec(32, 16, 3))
    with pytest.raises(ConfigError, match=r"width=100 must be a multiple of discriminator\.head_width=64"):
        VitConfig(width=100)


def test_trains_with_exact_r1_and_loads_again(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path) -> None:
    config = replace(tiny_config, discriminator=VitConfig(**SMALL), schedule=replace(tiny_config.schedule, kimg=0.016))
    run = train(config, tiny_data, tmp_path / "run")
    images = torch.randn(2, 3, 16, 16)
    D = load_discriminator(tmp_path / "run" / "network-snapshot-000000.pkl")
    assert isinstance(D, VitDiscriminator) and torch.equal(D(images), run.state.D.eval()(images))
