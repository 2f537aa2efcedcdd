"""A user's own network as a detector: TorchScript and exported programs, and everything that must be refused."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from image_sets import FixedImages, GeneratedImages
from inception_golden import recorded_images
from torch import Tensor, nn

from dnnlib.files import file_sha256
from metrics import registry
from metrics.detectors import BuildContext, Detector, full_precision
from metrics.distances.frechet import frechet_distance
from metrics.distances.kernel import kernel_distance
from metrics.families.module import build_module, prepare_module
from metrics.images import no_progress
from metrics.weights.published import Source

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)


class Colours(nn.Module):
    """Five numbers of an image; in training mode they depend on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("direction", torch.linspace(-1, 1, 6).view(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        means = self.norm(x.float().mean(dim=(2, 3)) / 100)
        return torch.cat([means, means @ self.direction], dim=1)


class Twisted(nn.Module):
    """Returns something that cannot be used."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        rows = x.float().mean(dim=(2, 3))
        if self.fault == "whole numbers":
            return rows.long()
        if self.fault == "a map":
            return x.float()
        if self.fault == "not finite":
            return rows / 0
        if self.fault == "at random":
            return torch.rand_like(rows)
        assert x.shape[2] == 99, "only 99 px"
        return rows


def save_script(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(network), path)
    return path


def save_export(network: nn.Module, path: Path, batch: int = 2, is_dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if is_dynamic else None
    example = torch.zeros(batch, *SHAPE, dtype=torch.uint8)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network as TorchScript and exported for any and for one batch size."""
    folder, network = tmp_path_factory.mktemp("modules"), Colours().eval()
    return {
        "script": save_script(network, folder / "colours.pt"),
        "export": save_export(network, folder / "colours.pt2"),
        "export of 2": save_export(network, folder / "two.pt2", is_dynamic=False),
    }


def open_on_cpu(path: Path, shape: tuple[int, int, int] = SHAPE) -> Detector:
    real = FixedImages(torch.zeros(1, *shape, dtype=torch.uint8))
    return build_module(BuildContext(real, CPU, Source({"module": path}), no_progress))


@pytest.mark.parametrize("kind", ["script", "export"])
def test_features_are_the_networks(kind: str, files: dict[str, Path]) -> None:
    detector, images = open_on_cpu(files[kind]), recorded_images("a")
    assert (detector.dim, detector.resize, detector.is_published) == (5, "own", False)
    assert detector.name == f"module:{files[kind].name}" and detector.digest == file_sha256(files[kind])
    with full_precision():
        features, expected = detector.network(images), Colours().eval()(images)
        assert not features.requires_grad and features.dtype == torch.float32
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(detector.network(images[:1]), expected[:1])
        grey = images[:, :1]
        torch.testing.assert_close(detector.network(grey), detector.network(grey.expand(-1, 3, -1, -1)))


def test_kind_is_told_by_content_and_training_mode_is_left(files: dict[str, Path], tmp_path: Path) -> None:
    detector = open_on_cpu(Path(shutil.copy(files["export"], tmp_path / "net.bin")), (1, 32, 32))
    assert detector.name == "module:net.bin"
    assert open_on_cpu(save_script(Colours().train(), tmp_path / "training.ts")).dim == 5
    half = nn.Sequential(Colours().eval(), HalfPrecision())
    assert open_on_cpu(save_script(half, tmp_path / "half.pt")).network(recorded_images("a")).dtype == torch.float32


class HalfPrecision(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.half()


def test_files_that_are_no_program_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --detector-module=FILE"):
        prepare_module(Source())
    with pytest.raises(ValueError, match=r"--detector-module=.*none\.pt: there is no such file"):
        open_on_cpu(tmp_path / "none.pt")
    torch.save(Colours().state_dict(), tmp_path / "state.pt")
    (tmp_path / "text.pt2").write_text("hello")
    for name in ("state.pt", "text.pt2"):
        with pytest.raises(ValueError, match=rf"{name} is neither TorchScript nor an exported program; write it by"):
            open_on_cpu(tmp_path / name)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("whole numbers", r"returns torch.int64 \[2, 3\] instead of floats \[2, features\]"),
        ("a map", r"returns torch.float32 \[2, 3, 32, 32\] instead"),
        ("not finite", "returns numbers that are not finite"),
        ("at random", "other features when other images are in the batch, or at random; save the network in eval mode"),
        ("size", r"given 2 images, uint8 \[2, 3, 32, 32\], fails: RuntimeError: AssertionError: only 99 px$"),
    ],
)  # fmt: skip
def test_unusable_answers_are_refused(fault: str, message: str, tmp_path: Path) -> None:
    path = save_script(Twisted(fault), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"(?s)--detector-module={path}.*{message}"):
        open_on_cpu(path)


def test_an_exported_program_needs_a_dynamic_batch(files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"(?s)given 3 images.* fails: .*\n.*Dim\.DYNAMIC.* two or more example"):
        open_on_cpu(files["export of 2"])
    with pytest.raises(ValueError, match=r"given 2 images, uint8 \[2, 3, 32, 48\], fails"):
        open_on_cpu(files["export"], (3, 32, 48))


def test_distances_follow_from_the_features(files: dict[str, Path], tmp_path: Path) -> None:
    weights = Source({"module": files["script"]}, cache_folder=tmp_path)
    prepare_module(weights)
    names, real, fake = ["fd_module_60_full", "kd_module_60_full"], recorded_images("a"), recorded_images("b")[:60]
    fd, kd = registry.evaluate(names, FixedImages(real), GeneratedImages(fake), batch_size=59, weights=weights)
    with torch.no_grad():
        x, y = (Colours().eval()(images).double() for images in (real, fake))
    assert fd.value == pytest.approx(frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()), rel=1e-4)
    assert fd.floor is not None and fd.floor > 0
    assert kd.value == pytest.approx(kernel_distance(y, x)[0], rel=1e-4)
    for result in (fd, kd):
        assert result.detector == "module:colours.pt" and result.detector_digest == file_sha256(files["script"])
        assert result.resize == "own" and not result.comparable_to_published
