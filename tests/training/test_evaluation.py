"""Generators and data sets as sources of images for metrics, and the metrics of a snapshot."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import noise, write_images
from torch import Tensor

from dnnlib.archive.writer import write_dataset
from dnnlib.images.codec import Layout, encode_png
from metrics import registry
from metrics.detectors import Detector
from metrics.weights.published import INCEPTION
from training.config import DatasetSpec, GeneratorConfig
from training.data.stream import ImageDataset
from training.evaluation.images import FakeSampler, RealSet, reference_dataset
from training.evaluation.inputs import open_images
from training.evaluation.snapshots import default_metrics, evaluate_snapshot
from training.networks.generator import Generator

COUNT = 13  # 5, 4 and 4 of the classes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data.zip", (noise(index, 16, 16) for index in range(COUNT)))


def generator(label_dim: int = 3, size: int = 16, class_names: tuple[str, ...] = ()) -> Generator:
    """A small network with noise that shows and colours that are not all clipped."""
    torch.manual_seed(0)
    stages = (size // 8).bit_length()
    config = GeneratorConfig(widths=(32,) * stages, layers=(1,) * stages, z_dim=8, w_dim=16)
    G = Generator(config, DatasetSpec(size, size, 3, label_dim, class_names)).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.2)
    return G


def gather(batches: Iterator[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    images, classes = zip(*batches, strict=True)
    return torch.cat(images), None if classes[0] is None else torch.cat(classes)


@pytest.fixture
def sampler(data: Path) -> FakeSampler:
    return FakeSampler(generator(), ImageDataset(data, use_labels=True))


def test_images_depend_on_their_index_alone(sampler: FakeSampler) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    images, classes = gather(sampler.batches(range(120), 120, seed=1))
    assert torch.equal(torch.rand(2), expected)  # the global random state is left alone
    assert images.dtype == torch.uint8 and images.shape == (120, 3, 16, 16)
    assert classes is not None and classes.shape == (120,)
    for start, stop, batch_size in [(0, 120, 7), (0, 70, 32), (0, 3, 64), (32, 48, 16), (48, 120, 24), (101, 120, 64)]:
        parts = list(sampler.batches(range(start, stop), batch_size, seed=1))
        assert all(len(part) == batch_size for part, _ in parts[:-1])
        some, their_classes = gather(iter(parts))
        assert torch.equal(some, images[start:stop])
        assert their_classes is not None and torch.equal(their_classes, classes[start:stop])


def test_images_follow_from_the_seed_and_differ_in_latent_and_noise(sampler: FakeSampler) -> None:
    first = gather(sampler.batches(range(100), 50, seed=1))[0]
    assert not torch.equal(first, gather(sampler.batches(range(100), 50, seed=2))[0])
    assert len({image.numpy().tobytes() for image in first}) == 100
    sampler.G.mapping_network.w_avg.zero_()
    for layer in sampler.G.mapping_network.layers:  # without latents, only the noise differs
        layer.weight.zero_()
    assert len({image.numpy().tobytes() for image in gather(sampler.batches(range(100), 50, seed=1))[0]}) == 100


def test_labels_are_drawn_as_often_as_the_data_set_has_them(data: Path) -> None:
    seen: list[Tensor] = []
    G = generator()
    G.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    sampler = FakeSampler(G, ImageDataset(data, use_labels=True))
    _, classes = gather(sampler.batches(range(1000), 100, seed=0))
    assert classes is not None
    assert torch.equal(torch.cat(seen).argmax(dim=1), classes)
    share = classes.bincount(minlength=3) / 1000
    torch.testing.assert_close(share, torch.tensor([5 / 13, 4 / 13, 4 / 13]), atol=0.04, rtol=0)


def test_classes_are_matched_by_name(data: Path, tmp_path: Path) -> None:
    """The data set calls its classes 0, 1, 2; the network and the folder of images number them otherwise."""
    seen: list[Tensor] = []
    G = generator(class_names=("2", "0", "1"))
    G.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    _, classes = gather(FakeSampler(G, ImageDataset(data, use_labels=True)).batches(range(20), 20, seed=0))
    assert classes is not None
    assert torch.equal(torch.cat(seen)[:20].argmax(dim=1), (classes + 1) % 3)
    with pytest.raises(ValueError, match=r"class names of the network and of .*data.zip differ \(2, red\)"):
        FakeSampler(generator(class_names=("0", "1", "red")), ImageDataset(data, use_labels=True))
    images, _ = zip(*ImageDataset(data), strict=True)
    for names, expected, notes in ((("1", "2"), [1, 2, 1], 0), (("1", "red"), None, 1)):
        with write_dataset(tmp_path / "fake.zip", names, force=True) as writer:
            for index, image in enumerate(images[:3]):
                writer.add(encode_png(image.transpose(1, 2, 0)), index % 2)
        fake = open_images(str(tmp_path / "fake.zip"), reference_dataset(data), 0)
        numbers = gather(fake.batches(range(3), 3))[1]
        assert expected == (None if numbers is None else numbers.tolist())
        assert sum("class names are not those of the real images" in line for line in fake.notes()) == notes


def test_images_that_are_not_finite_are_refused(data: Path) -> None:
    G = generator()
    for parameter in G.synthesis.parameters():
        parameter.fill_(float("nan"))
    sampler = FakeSampler(G, ImageDataset(data, use_labels=True))
    for batches in (sampler.batches, sampler.pairs):
        with pytest.raises(ValueError, match="the network's images are not finite; use an earlier snapshot"):
            gather(batches(range(4), 4, seed=0))


def test_generators_that_do_not_match_are_refused(data: Path) -> None:
    with pytest.raises(ValueError, match=r"labels of length 3, but those of .* have length 0"):
        FakeSampler(generator(), ImageDataset(data))
    with pytest.raises(ValueError, match=r"32x32 px with 3 channels, but those .* have 16x16 px"):
        FakeSampler(generator(size=32), ImageDataset(data, use_labels=True))
    FakeSampler(generator(label_dim=0), ImageDataset(data, use_labels=True))


def test_real_set_is_the_data_set_in_order(data: Path) -> None:
    dataset = ImageDataset(data, use_labels=True, mirror=True)
    real = RealSet(dataset)
    assert (real.count, real.image_shape, real.num_classes) == (2 * COUNT, (3, 16, 16), 3)
    images, classes = gather(real.batches(range(real.count), 7))
    assert all(np.array_equal(images[index], dataset.image(index)) for index in range(2 * COUNT))
    assert classes is not None and classes.tolist() == [dataset.label(index).argmax() for index in range(2 * COUNT)]
    ((images, classes),) = real.batches(range(1, COUNT, 3), COUNT)  # evenly spaced ones, for the classifier proxy
    assert classes is not None and classes.tolist() == [dataset.label(index).argmax() for index in range(1, COUNT, 3)]
    assert np.array_equal(images[1], dataset.image(4))
    assert RealSet(ImageDataset(data)).num_classes == 0
    reference = reference_dataset(data)  # labels and all images, whatever was trained on
    assert len(reference) == COUNT and reference.spec.label_dim == 3


def test_pairs_differ_by_a_small_step_in_w_and_not_in_noise(sampler: FakeSampler) -> None:
    pairs, _ = gather(sampler.pairs(range(60), 7, seed=1))
    assert pairs.shape == (60, 2, 3, 16, 16) and pairs.dtype == torch.float32
    near, far = pairs.unbind(dim=1)
    apart = (near - far).flatten(1).norm(dim=1) / near.flatten(1).norm(dim=1)
    assert apart.min() > 0 and apart.max() < 1e-3  # different noise would make far more
    images, _ = gather(sampler.batches(range(60), 60, seed=1))
    difference = (near.clamp(0, 255).floor() - images.float()).abs()  # rounding differs by half a level
    assert difference.max() <= 1
    assert torch.equal(gather(sampler.pairs(range(50, 60), 10, seed=1))[0], pairs[50:])


@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_snapshot_metrics_are_printed_and_recorded_beside_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    snapshot = tmp_path / "network-snapshot-000004.pkl"
    snapshot.write_bytes(b"networks")
    trained_on = ImageDataset(data, use_labels=True, mirror=True, max_images=5)
    (result,) = evaluate_snapshot(("proxy_fd_randconv_v1",), generator(), trained_on, snapshot, seed=4)
    (line,) = (tmp_path / "metric-proxy_fd_randconv_v1.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["value"] == result.value and row["snapshot"] == snapshot.name
    assert (row["num_real"], row["num_gen"], row["seed"]) == (COUNT, 2000, 4)
    assert row["snapshot_hash"] == hashlib.sha256(b"networks").hexdigest()
    assert capsys.readouterr().out.startswith(f"proxy_fd_randconv_v1 {result.value:.4g}  (floor ")


@pytest.mark.filterwarnings("ignore:a Frechet distance")
def test_snapshot_is_measured_against_flipped_images_only_if_training_flips(data, tmp_path, monkeypatch):
    means = Detector("means", lambda images: images.float().mean(dim=(2, 3)), 3, "none", "none", is_published=True)
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.DETECTORS, "inception_2015", registry.DetectorKind(lambda context: means))
    snapshot = tmp_path / "network-snapshot-000004.pkl"
    snapshot.write_bytes(b"networks")
    for mirror, expected in ((False, COUNT), (True, 2 * COUNT)):
        trained_on = ImageDataset(data, use_labels=True, mirror=mirror, max_images=5)
        first, full = evaluate_snapshot(("fid10", "fid10_full"), generator(), trained_on, snapshot, seed=0)
        assert (first.num_real, full.num_real) == (expected, COUNT)


def test_default_is_fid_where_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INCEPTION.variable, raising=False)
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path))
    names, line = default_metrics()
    assert names == () and "\n" not in line and "curl -L" in line
    monkeypatch.setenv(INCEPTION.variable, str(tmp_path / "mine.pth"))
    assert default_metrics()[0] == ()
    (tmp_path / "mine.pth").write_bytes(b"weights")
    assert default_metrics() == (("fid50k_full",), "")
    monkeypatch.delenv(INCEPTION.variable)
    (tmp_path / INCEPTION.name).write_bytes(b"damaged weights")
    assert default_metrics()[0] == ()


def write_folder(folder: Path, pixels: list[np.ndarray]) -> str:
    folder.mkdir()
    for index, image in enumerate(pixels):
        (folder / f"{index}.png").write_bytes(encode_png(image))
    return str(folder)


def test_grey_and_equal_channels_are_the_same_images(tmp_path: Path) -> None:
    grey = [noise(index, 16, 16, 1) for index in range(3)]
    sets = {
        "grey": write_folder(tmp_path / "grey", grey),
        "equal": write_folder(tmp_path / "equal", [image.repeat(3, axis=2) for image in grey]),
        "mixed": write_folder(tmp_path / "mixed", [grey[0], grey[1].repeat(3, axis=2), grey[2]]),
        "packed": str(write_images(tmp_path / "packed.zip", grey, layout=Layout(16, 16, 1))),
    }
    expected = torch.from_numpy(np.stack(grey)).permute(0, 3, 1, 2)
    for real in sets.values():
        channels = reference_dataset(real).spec.channels
        for fake in sets.values():
            images = gather(open_images(fake, reference_dataset(real), 0).batches(range(3), 2, seed=0))[0]
            assert torch.equal(images, expected.expand(3, channels, 16, 16))
    colour = write_folder(tmp_path / "colour", [noise(index, 16, 16) for index in range(3)])
    with pytest.raises(ValueError, match=f"--images={colour} has images of 16x16 px with 3 channels.*must agree"):
        open_images(colour, reference_dataset(sets["grey"]), 0)
    later = write_folder(tmp_path / "later", [grey[0], noise(1, 16, 16), grey[2]])
    with pytest.raises(ValueError, match=r"1.png in .*later is in colour, among grey images"):
        gather(open_images(later, reference_dataset(sets["grey"]), 0).batches(range(3), 2, seed=0))
