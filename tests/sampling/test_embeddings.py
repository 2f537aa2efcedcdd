"""Embeddings: of every kind of discriminator, and LPIPS."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from metrics.networks.lpips import CHANNELS, Lpips, read_channel_weights
from sampling import embeddings
from sampling.embeddings import lpips_embedding, squared_distances
from training.config import DatasetSpec, DiscriminatorConfig
from training.networks.discriminator import Discriminator


@pytest.mark.parametrize("architecture", ["orig", "resnet", "skip"])
def test_feature_maps_are_those_the_logit_is_made_of(architecture: str) -> None:
    config = DiscriminatorConfig(architecture, channel_base=128, channel_max=16, mbstd_group=2)
    discriminator = Discriminator(config, DatasetSpec(16, 32, 3)).eval()
    images = torch.rand(2, 3, 16, 32) * 2 - 1
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *given: seen.append(given[2])) for block in discriminator.blocks]
    discriminator(images)
    for handle in handles:
        handle.remove()
    maps = discriminator.features(images)
    assert len(maps) == len(discriminator.blocks)
    for found, expected in zip(maps, seen, strict=True):
        torch.testing.assert_close(found, expected)


def test_lpips_takes_images_of_the_generators_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel_weights = tmp_path / "vgg.pth"
    torch.manual_seed(0)
    torch.save(
        {f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1) for i, count in enumerate(CHANNELS)}, channel_weights
    )
    vgg16 = nn.Module()
    vgg16.features = make_layers(cfgs["D"])
    monkeypatch.setattr(embeddings, "load_vgg16", lambda path: vgg16)
    monkeypatch.setattr(embeddings, "require", lambda file, source: SimpleNamespace(path=Path("vgg16.pth")))
    embed = lpips_embedding(channel_weights, 32, 32, torch.device("cpu"))
    a, b = torch.rand(2, 2, 1, 32, 32) * 2 - 1
    found = squared_distances(embed(a.requires_grad_()), embed(b))
    expected = Lpips(vgg16.features, read_channel_weights(channel_weights)).distance((a + 1) * 127.5, (b + 1) * 127.5)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    found.sum().backward()
    assert a.grad is not None and a.grad.abs().max() > 0
    with pytest.raises(ValueError, match="images of 8x16 px are too small"):
        lpips_embedding(channel_weights, 16, 8, torch.device("cpu"))
