"""Published checkpoints give the published images, and opening a file never runs anything in it."""

import io
import os
import pickle
import pickletools
import random
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.checkpoint.files import CheckpointError
from training.checkpoint.published import data_config, generator_config
from training.checkpoint.published_pickle import PublishedFileError, read_published, rebuild_tensor
from training.checkpoint.snapshot import export_snapshot, load_discriminator, load_generator, read_snapshot
from training.config import DataConfig

DATA = Path(__file__).parents[1] / "data" / "published"
ROOT = Path(__file__).parents[2]
NAMES = ["official_small", "official_small_linformer_cond"]


@pytest.mark.parametrize("name", NAMES)
def test_published_images(published: Path, name: str) -> None:
    generator = load_generator(published / f"{name}.pkl")
    expected = np.load(DATA / f"{name}_expected.npz")
    assert sum(p.numel() for p in generator.parameters()) == expected["num_params_G"]
    for seed in range(4):
        z = torch.as_tensor(np.random.RandomState(seed).randn(1, generator.z_dim), dtype=torch.float32)
        c = torch.eye(generator.c_dim)[[seed % generator.c_dim]] if generator.c_dim else None
        for psi in (1, 0.7):
            for noise_mode in ("none", "const"):
                image = generator(z, c, truncation_psi=psi, noise_mode=noise_mode)[0]
                key = f"seed{seed}_psi{psi}_{noise_mode}"
                if seed == 0:
                    recorded = torch.as_tensor(expected[f"float_{key}"])
                    assert (image - recorded).abs().max() / recorded.abs().max() < 1e-5
                quantised = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
                assert np.abs(quantised.astype(int) - expected[key]).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_published_discriminator(published: Path, name: str) -> None:
    expected = np.load(DATA / f"{name}_expected.npz")
    logits = load_discriminator(published / f"{name}.pkl")(
        torch.as_tensor(expected["d_img"]), torch.as_tensor(expected["d_c"])
    )
    assert np.abs(logits.numpy() - expected["d_logits"]).max() <= 1e-5 * np.abs(expected["d_logits"]).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_exported_files_hold_the_same_networks(published: Path, tmp_path: Path, name: str, suffix: str) -> None:
    source, target = published / f"{name}.pkl", tmp_path / f"ours{suffix}"
    export_snapshot(source, target)
    first, second = read_snapshot(source), read_snapshot(target)
    assert first[:2] == second[:2]
    for network in ("G", "D", "G_ema"):
        assert first[2][network].keys() == second[2][network].keys()
        for key, value in first[2][network].items():
            assert torch.equal(value, second[2][network][key])
    networks = [load_generator(path) for path in (source, target)]
    z, c = torch.randn(1, networks[0].z_dim), torch.eye(networks[0].c_dim)[:1]
    images = [network(z, c, noise_mode="const") for network in networks]
    assert torch.equal(images[0], images[1])
    assert first[0].data == DataConfig(path="data.zip", cond=name.endswith("cond"))


@pytest.mark.parametrize("kind", ["truncated", "other", "foreign"])
def test_damaged_safetensors_are_refused_in_one_line(published: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ours.safetensors"
    export_snapshot(published / "official_small.pkl", path)
    contents = {
        "truncated": path.read_bytes()[:-1],
        "other": b"PNG" * 100,
        "foreign": (2).to_bytes(8, "little") + b"{}",  # nobody's tensors, no configuration
    }
    path.write_bytes(contents[kind])
    with pytest.raises(CheckpointError, match=r"ours\.safetensors: (not an exported network|this is a text).*\.?$"):
        load_generator(path)


def test_package_that_only_safetensors_need_is_named_where_it_is_missing(published, tmp_path, monkeypatch) -> None:
    path = tmp_path / "ours.safetensors"
    export_snapshot(published / "official_small.pkl", path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch")
    for use in (load_generator, partial(export_snapshot, published / "official_small.pkl")):
        with pytest.raises(CheckpointError, match=r"ours\.safetensors: .*: pip install safetensors$"):
            use(path)
    export_snapshot(published / "official_small.pkl", tmp_path / "ours.pkl")
    assert load_generator(tmp_path / "ours.pkl").img_height == 32


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def torch_archive(content: object, is_zip: bool = False) -> bytes:
    archive = io.BytesIO()
    torch.save(content, archive, _use_new_zipfile_serialization=is_zip)
    return archive.getvalue()


def huge_storage() -> bytes:
    """A torch archive that declares 10^12 numbers and holds four."""
    data = torch_archive(torch.zeros(4)._typed_storage())
    small, huge = pickle.dumps(4, 2)[2:-1], pickle.dumps(10**12, 2)[2:-1]
    assert b"cpu" in data
    place = data.index(small, data.index(b"cpu"))
    return data[:place] + huge + data[place + len(small) :]


@pytest.mark.parametrize(
    "kind", ["os.system", "in a zip", "builtins.eval", "nested", "huge", "memo", "bytes", "truncated"]
)
def test_hostile_files(published: Path, tmp_path: Path, kind: str) -> None:
    """Nothing runs, nothing large is allocated, one clear line, which tells nobody how to run it."""
    target, path = tmp_path / "it-ran", tmp_path / "hostile.pkl"
    touch = Call(os.system, f"touch {target}")
    contents = {
        "os.system": pickle.dumps({"G_ema": touch}),
        "in a zip": torch_archive({"G_ema": touch}, is_zip=True),
        "builtins.eval": pickle.dumps({"G_ema": Call(eval, f"open({str(target)!r}, 'w')")}),
        "nested": pickle.dumps({"G_ema": Call(torch.storage._load_from_bytes, torch_archive(touch))}),
        "huge": pickle.dumps({"G_ema": Call(torch.storage._load_from_bytes, huge_storage())}),
        "memo": b"\x80\x04Nr\xff\xff\xff\x7f.",  # an entry far out in the memo
        "bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # a text of 10^18 bytes
        "truncated": (published / "official_small.pkl").read_bytes()[:100_000],
    }
    path.write_bytes(contents[kind])
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"hostile\.pkl") as caught:
        load_generator(path)
    assert "\n" not in str(caught.value) and "trust" not in str(caught.value)
    assert not target.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000


def test_flipped_bytes_end_in_one_clear_line_or_load(published: Path, tmp_path: Path) -> None:
    """Byte flips where the pickle is structure, not numbers."""
    data = (published / "official_small.pkl").read_bytes()
    operations = list(pickletools.genops(data))
    ends = [position for _, _, position in operations[1:]] + [len(data)]
    structure = [
        position + offset
        for (operation, _, position), end in zip(operations, ends, strict=True)
        if not operation.name.endswith(("BINBYTES", "BINBYTES8"))
        for offset in range(end - position)
    ]
    rng = random.Random(0)
    refused = 0
    for _ in range(12):
        flipped = bytearray(data)
        flipped[rng.choice(structure)] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped.pkl").write_bytes(flipped)
        try:
            load_generator(tmp_path / "flipped.pkl")
        except CheckpointError as error:
            refused += 1
            assert "flipped.pkl" in str(error)
    assert refused > 2


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(0, (7,), (1,)), (5, (2,), (1,)), (-1, (1,), (1,)), (0, (2,), (-1,))]
)
def test_a_tensor_cannot_reach_beyond_its_storage(offset: int, size: tuple[int], stride: tuple[int]) -> None:
    with pytest.raises(PublishedFileError, match="storage of 6 numbers"):
        rebuild_tensor(torch.arange(6.0), offset, size, stride)


def test_networks_of_other_programs_are_named(published: Path) -> None:
    module = read_published(published / "official_small.pkl")["G_ema"]
    del module.state["_init_kwargs"]["synthesis_kwargs"]["G_dict"]
    with pytest.raises(PublishedFileError, match="not a Styleformer"):
        generator_config(module)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"path": "~/a b.zip", "use_labels": True, "xflip": True}, DataConfig("~/a b.zip", cond=True, mirror=True)),
        ({"path": ["a.zip"], "use_labels": 1, "xflip": torch.ones(2)}, DataConfig()),
        ({"path": "\x1b[2Ja.zip"}, DataConfig()),
        ({"path": "a" * 5000}, DataConfig()),
        (None, DataConfig()),
    ],
)
def test_only_plain_values_describe_the_training_set(kwargs: object, expected: DataConfig) -> None:
    assert data_config(kwargs) == expected
