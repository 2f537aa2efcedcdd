"""Reading weights, those of Inception in two layouts, and everything that must be refused."""

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from metrics.networks.inception import read_inception, torchscript_names
from metrics.weights.reading import is_torchscript, read_state, read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

SHAPES = "Mixed_6b.branch7x7_2.conv.weight"


@pytest.fixture(scope="module")
def small_state(random_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of the right names and shapes that is small as a file: every tensor repeats one number."""
    return {name: torch.ones((), dtype=value.dtype).expand(value.shape) for name, value in random_state.items()}


def save(folder: Path, state: object) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_both_layouts_give_the_same_state(weights_file, archive_file, random_state):
    assert not is_torchscript(weights_file) and is_torchscript(archive_file)
    assert same(read_inception(weights_file), random_state)
    assert same(read_inception(archive_file), random_state)


def test_names_of_the_archive() -> None:
    names = torchscript_names()
    assert len(names) == len(set(names.values())) == 378
    digest = hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()
    assert digest == "a01c391308b4db3572a84514af275357cf09d6fed361c624035b86c10225f08c"


def test_other_networks_are_refused(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    assert same(read_inception(save(tmp_path, small_state)), small_state)
    nan = torch.full_like(small_state[SHAPES], float("nan"))
    for state, message in (
        ({k: v for k, v in small_state.items() if k != SHAPES}, rf"it has 565; it lacks '{SHAPES}'"),
        ({**small_state, "AuxLogits.fc.bias": torch.zeros(2)}, "also has 'AuxLogits.fc.bias'"),
        ({**small_state, 5: torch.zeros(2)}, "also has 5"),
        ({**small_state, SHAPES: torch.zeros(128, 128, 7, 1)}, rf"{SHAPES} is torch.float32 \[128, 128, 7, 1\], not"),
        ({**small_state, SHAPES: small_state[SHAPES].half()}, "is torch.float16"),
        ({**small_state, SHAPES: nan}, f"{SHAPES} has values that are not finite"),
        ({**small_state, SHAPES: "weights"}, f"{SHAPES} is str, not"),
        ([1, 2], "has a list where named tensors are expected"),
        ({"weight": torch.zeros(2)}, "is not the Inception network of 2015: of 566 tensors expected it has 0"),
    ):
        with pytest.raises(ValueError, match=message):
            read_inception(save(tmp_path, state))


def test_archive_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), tmp_path / "linear.pt")
    assert set(read_tensors(tmp_path / "linear.pt")) == {"weight", "bias"}
    with pytest.raises(ValueError, match="not the Inception network of 2015: of 378 tensors expected it has 0"):
        read_inception(tmp_path / "linear.pt")


def test_archive_gives_views_types_and_shared_tensors(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        sizes: list[int]

        def __init__(self) -> None:
            super().__init__()
            self.sizes, self.ratio, self.name = [1, 2], 0.5, "net"
            base = torch.arange(12.0).view(3, 4)
            self.register_buffer("view", base[1:, ::2])
            self.register_buffer("turned", base.T)
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("short", torch.ones(2, dtype=torch.float16))
            self.register_buffer("none", torch.zeros(0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.ratio + len(self.sizes)

    net = Net()
    torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    assert same(read_tensors(tmp_path / "net.pt"), dict(net.named_buffers()))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_no_code_of_an_archive_is_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump({"weight": Malicious(tmp_path / "harm")}, buffer)
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/data.pkl", buffer.getvalue())
        archive.writestr("bad/constants.pkl", b"\x80\x02).")
    with pytest.raises(ValueError, match=r"it asks for (posix|nt)\.mkdir, which no archive of weights needs"):
        read_inception(tmp_path / "bad.pt")
    torch.save({"weight": Malicious(tmp_path / "harm")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="not a file of weights, or damaged"):
        read_inception(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.png", "x")


def cut(length: int, is_zip: bool) -> Callable[[Path], None]:
    """Writer of the first bytes of a file of weights, in the newer or the older layout."""

    def write(path: Path) -> None:
        torch.save({"weight": torch.zeros(20_000)}, path, _use_new_zipfile_serialization=is_zip)
        path.write_bytes(path.read_bytes()[:length])

    return write


OTHERS: list[Callable[[Path], object]] = [
    Path.touch, other_zip, cut(40_000, True), cut(40_000, False),
    lambda path: Image.new("RGB", (16, 16)).save(path, "png"),
    lambda path: torch.save(torch.nn.Linear(2, 2), path),
    lambda path: path.write_bytes(pickle.dumps(5, protocol=2)),
]  # fmt: skip


@pytest.mark.parametrize("write", OTHERS)
def test_other_files_are_refused_without_torchs_advice(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ValueError, match=r"weights\.pth .* is not a file of weights, or damaged") as caught:
        read_state(path)
    message = str(caught.value)
    assert "\n" not in message and "weights_only" not in message and "trust" not in message
