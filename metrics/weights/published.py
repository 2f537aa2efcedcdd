"""The published weights that detectors need: their addresses and hashes, and how they are found or downloaded."""

import http.client
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dnnlib.files import file_sha256
from dnnlib.paths import user_path
from metrics import cache

MIRROR_VARIABLE = "STYLEFORMER_MIRROR"


@dataclass(frozen=True)
class WeightsFile:
    key: str  # in --detector=KEY=FILE
    what: str  # in messages
    name: str  # of the file in the cache folder, and on a mirror
    addresses: tuple[str, ...]  # equal content
    num_bytes: int
    sha256: str
    other_sha256: tuple[str, ...] = ()  # of files with the same weights in another layout; accepted by path only

    @property
    def variable(self) -> str:
        """Environment variable with the path of a copy."""
        return f"STYLEFORMER_{self.key.upper()}"


INCEPTION = WeightsFile(
    key="inception",
    what="Inception weights",
    name="pt_inception-2015-12-05-6726825d.pth",
    addresses=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    num_bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    other_sha256=("f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",),  # inception-2015-12-05.pt
)

VGG16 = WeightsFile(
    key="vgg16",
    what="VGG16 weights",
    name="vgg16-397923af.pth",
    addresses=("https://download.pytorch.org/models/vgg16-397923af.pth",),
    num_bytes=553_433_881,
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    other_sha256=("b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3",),  # vgg16.pt
)

LPIPS = WeightsFile(
    key="lpips",
    what="LPIPS channel weights for VGG16",
    name="lpips-v0.1-vgg.pth",
    addresses=("https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",),
    num_bytes=7_289,
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)

DINOV2 = WeightsFile(
    key="dinov2",
    what="DINOv2 ViT-L/14 weights",
    name="dinov2_vitl14_pretrain.pth",
    addresses=("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",),
    num_bytes=1_217_586_395,
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
)

FILES = {file.key: file for file in (INCEPTION, VGG16, LPIPS, DINOV2)}


@dataclass(frozen=True)
class Source:
    """Where weights are searched and whether they may be downloaded; where features of real images are kept."""

    paths: Mapping[str, Path] = field(default_factory=dict)  # by key: a file of any hash, in place of a search
    offline: bool = False  # download nothing
    cache_folder: Path | None = None  # of weights and features; None = `cache.default_folder()`
    bar: bool = False  # show one while downloading

    @property
    def folder(self) -> Path:
        return self.cache_folder or cache.default_folder()

    def cached(self, file: WeightsFile) -> Path:
        return self.folder / file.name


@dataclass(frozen=True)
class Weights:
    path: Path
    sha256: str
    is_published: bool  # its content is that of the published file


class MissingWeights(ValueError):
    """Weights are not on this machine; the message has the command that gets them."""


def find(file: WeightsFile, source: Source) -> Weights | None:
    """Return the weights from the source's path, the environment variable or the cache; None if all three have none.

    A file named by path may have any hash, that of one in the cache must be right. Raises ValueError for a path without
    a file and for a wrong file in the cache.
    """
    named = {"--detector": source.paths.get(file.key), f"${file.variable}": os.environ.get(file.variable)}
    for origin, name in named.items():
        if name:
            path = user_path(name)
            if not path.is_file():
                raise ValueError(f"{origin}={path}: there is no such file; it should have the {file.what}")
            found = file_sha256(path)
            return Weights(path, found, is_published=found in (file.sha256, *file.other_sha256))
    path = source.cached(file)
    if not path.is_file():
        return None
    found = file_sha256(path)
    if found != file.sha256:
        raise ValueError(
            f"{path} is not the published file: it has {path.stat().st_size:,} bytes and sha256 {found}, expected are "
            f"{file.num_bytes:,} bytes and sha256 {file.sha256}. Delete it, and get it again:\n    {command(file, source)}"
        )
    return Weights(path, found, is_published=True)


def require(file: WeightsFile, source: Source, reason: str = "") -> Weights:
    """Return the weights that `find` finds; raises MissingWeights where there are none."""
    if weights := find(file, source):
        return weights
    path = source.cached(file)
    raise MissingWeights(
        f"the {file.what} are not in {path.parent}{reason}.\n"
        f"The file is {file.name}, {file.num_bytes:,} bytes, sha256 {file.sha256}. Place it there with\n"
        f"    {command(file, source)}\n"
        f"or name a copy with --detector={file.key}=FILE (calc_metrics.py) or ${file.variable}"
    )


def obtain(file: WeightsFile, source: Source) -> Weights:
    """Return the weights that `find` finds, downloaded into the cache if need be; raises MissingWeights."""
    if weights := find(file, source):
        return weights
    reason = ", and --offline forbids to download them" if source.offline else ""
    if not source.offline and (problems := _download(file, source)):
        reason = f", and downloading them failed ({'; '.join(problems)})"
    return require(file, source, reason)


def command(file: WeightsFile, source: Source) -> str:
    """Return the shell command that places the weights in the cache."""
    return f"curl -L --create-dirs -o {shlex.quote(str(source.cached(file)))} {shlex.quote(_addresses(file)[0])}"


def _download(file: WeightsFile, source: Source) -> list[str]:
    """Place a file in the cache from the first address that delivers it; return what went wrong if none does.

    Raises OSError for a folder that cannot be written.
    """
    path, problems = source.cached(file), []
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"Downloading {file.name} ({file.num_bytes:,} bytes)", file=sys.stderr, flush=True)
    for address in _addresses(file):
        try:
            torch.hub.download_url_to_file(address, str(path), hash_prefix=file.sha256, progress=source.bar)
            return []
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # RuntimeError: of another content
            problems.append(f"{address}: {str(error) or type(error).__name__}")
    return problems


def _addresses(file: WeightsFile) -> tuple[str, ...]:
    """Return where to download from: a mirror alone, where one is set."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return file.addresses
    if not mirror.startswith(("https://", "http://", "file://")):
        raise ValueError(f"${MIRROR_VARIABLE}={mirror} is not an address; write it like https://example.org/weights")
    return (f"{mirror.rstrip('/')}/{file.name}",)
