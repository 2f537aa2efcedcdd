"""Network snapshots: save, read (also states, published and exported ones), build their networks."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dnnlib.dataclass_values import ConfigError, build
from dnnlib.files import atomic_write
from dnnlib.names import printable
from torch_utils.distributed import print0
from training.checkpoint.files import SNAPSHOT_FORMAT, STATE_FORMAT, CheckpointError, existing_file, header, read, write
from training.checkpoint.published import import_published
from training.checkpoint.published_pickle import PublishedFileError
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.registry import create
from training.state import TrainState

SAFETENSORS = ".safetensors"
EXPORTED_NAME = r"(G|D|G_ema(?:_[\d.e+-]+?)?)\.(\D.*)"  # network and parameter
Snapshot = tuple[RunConfig, DatasetSpec, dict[str, Any]]  # what `read_snapshot` returns
IMAGE_FIELDS = {"height": "height", "width": "width", "colour channels": "channels", "classes": "label_dim"}


def snapshot_content(
    config: RunConfig, spec: DatasetSpec, cur_nimg: int, content_hash: str, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a snapshot contains: the settings, images seen, the hash of the data set, and the tensors by network."""
    head = header(SNAPSHOT_FORMAT, config, spec, cur_nimg) | {"content_hash": content_hash}
    return head | {name: tensors[name] for name in ("G", "D", *config.ema.averages)}


def save_snapshot(path: Path, state: TrainState, content_hash: str = "") -> None:
    """Write the snapshot of a training state. Raises OSError."""
    tensors = {name: network.state_dict() for name, network in state.networks.items()}
    write(path, snapshot_content(state.config, state.spec, state.cur_nimg, content_hash, tensors))


def read_snapshot(path: str | Path) -> Snapshot:
    """Configuration, image format and tensors by network of a snapshot or training state, an exported or a published file.

    Raises CheckpointError.
    """
    path = existing_file(path)
    with open(path, "rb") as file:
        is_published = file.read(1) == b"\x80"  # a bare pickle; ours are zip archives
    try:
        if is_published:
            return import_published(path)
        values = read_exported(path) if path.suffix == SAFETENSORS else read_own(path)
        return RunConfig.from_dict(values["config"]), build(DatasetSpec, values["dataset"], "dataset"), values
    except PublishedFileError as error:
        raise CheckpointError(str(error)) from error
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used: {error}") from error


def read_own(path: Path) -> dict[str, Any]:
    """The header and networks of a snapshot or training state. Raises CheckpointError."""
    values = read(path, SNAPSHOT_FORMAT, STATE_FORMAT)
    networks = values.pop("state", {})
    return values | networks


def load_safetensors(path: Path) -> ModuleType:
    """The package safetensors, which is optional. Raises CheckpointError."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError(f"{path}: .safetensors needs one more package: pip install safetensors") from error
    return safetensors


def read_exported(path: Path) -> dict[str, Any]:
    """The header and networks in a .safetensors file of `export_snapshot`. Raises CheckpointError."""
    library = load_safetensors(path)
    try:
        with library.safe_open(path, framework="pt") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})["styleformer"])
            for name in file.keys():  # noqa: SIM118
                network, parameter = re.fullmatch(EXPORTED_NAME, name).groups()  # type: ignore[union-attr]
                values.setdefault(network, {})[parameter] = file.get_tensor(name)
        return values
    except library.SafetensorError as error:
        raise CheckpointError(f"{path}: not an exported network, or damaged ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an exported network of this program (no {error} in its header)") from error


def export_snapshot(source: str | Path, target: Path) -> None:
    """Convert a snapshot to .pkl, or to .safetensors with the configuration in the header. Raises CheckpointError, OSError."""
    if target.suffix not in (".pkl", SAFETENSORS):
        raise CheckpointError(f"{target}: the name must end in .pkl or {SAFETENSORS}")
    library = load_safetensors(target) if target.suffix == SAFETENSORS else None
    config, spec, values = read_snapshot(source)
    content = snapshot_content(config, spec, values["cur_nimg"], values.get("content_hash", ""), values)
    if library is None:
        write(target, content)
        return
    networks = {name: content.pop(name) for name in ("G", "D", *config.ema.averages)}
    tensors = {
        f"{network}.{name}": x.clone(memory_format=torch.contiguous_format)
        for network, state in networks.items()
        for name, x in state.items()
    }
    with atomic_write(target) as file:
        file.write(library.torch.save(tensors, {"styleformer": json.dumps(content)}))


def build_network(path: str | Path, snapshot: Snapshot, group: str, name: str, device: torch.device | str) -> Any:
    """A network of a snapshot in eval mode: `group` is that of its settings, `name` that of its tensors."""
    config, spec, values = snapshot
    settings = getattr(config, group)
    network = create(group, settings.kind, settings, spec).to(device)
    try:
        network.load_state_dict(values[name])
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: its weights do not fit its configuration ({reason})") from error
    network.run_config, network.snapshot = config, str(path)
    return network.eval().requires_grad_(False)


def load_generator(path: str | Path, device: torch.device | str = "cpu", ema: float | None = None) -> Generator:
    """The averaged generator of a snapshot, in eval mode; `ema` is its half-life, thousands of images, None = that of G_ema.

    Raises CheckpointError.
    """
    snapshot = read_snapshot(path)
    name = "G_ema" if ema is None else average_name(path, snapshot[0], ema)
    network: Generator = build_network(path, snapshot, "generator", name, device)
    return network


def average_name(path: str | Path, config: RunConfig, ema: float) -> str:
    """The name of the average with a half-life, thousands of images. Raises CheckpointError where there is none."""
    averages = {half_life: name for name, half_life in config.ema.averages.items()}
    if ema not in averages:
        known = ", ".join(str(half_life).removesuffix(".0") for half_life in averages)
        raise CheckpointError(
            f"{path}: --ema={ema:g}: it has no such average; the half-lives of its averages are {known} kimg"
        )
    return averages[ema]


def load_discriminator(path: str | Path, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot in eval mode. Raises CheckpointError."""
    network: Discriminator = build_network(path, read_snapshot(path), "discriminator", "D", device)
    return network


def weight_settings(config: RunConfig, spec: DatasetSpec) -> dict[str, object]:
    """The settings that decide whether weights fit, by the name that messages give them."""
    found: dict[str, object] = {name: getattr(spec, field) for name, field in IMAGE_FIELDS.items()}
    for group in ("generator", "discriminator"):
        network = getattr(config, group)
        found |= {
            f"{group}.{name}": value for name, value in {"kind": network.kind, **network.weight_settings()}.items()
        }
    return found


def check_fits(
    path: Path, config: RunConfig, spec: DatasetSpec, log: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The tensors of a snapshot for each network of this configuration. Raises CheckpointError unless they fit it.

    Logs where equally many classes have other names.
    """
    theirs_config, theirs_spec, values = read_snapshot(path)
    if values.get("format") == STATE_FORMAT:
        raise CheckpointError(f"{path}: this is a training state; to resume its run: --resume=latest")
    there, here = weight_settings(theirs_config, theirs_spec), weight_settings(config, spec)
    differences = [
        f"{name} {there.get(name)} there, {value} here" for name, value in here.items() if there.get(name) != value
    ]
    if differences:
        raise CheckpointError(
            f"{path}: its networks do not fit this run ({'; '.join(differences)}); use the --cfg, --cond, image size and "
            f"network options of the run it comes from"
        )
    if theirs_spec.class_names != spec.class_names:
        log(
            f"Classes are matched by number, but their names differ: {class_words(theirs_spec)} in {path}; {class_words(spec)} "
            "in the data set"
        )
    sources = config.ema.sources(theirs_config.ema)
    return {name: values[sources.get(name, name)] for name in ("G", "D", *sources)}


def class_words(spec: DatasetSpec) -> str:
    """The first class names, for messages."""
    names = ", ".join(map(printable, spec.class_names[:5])) or "no names"
    return names + (", ..." if len(spec.class_names) > 5 else "")


def load_networks(path: str | Path, state: TrainState) -> None:
    """Start a training state from the networks of a snapshot (fine-tuning). Raises CheckpointError."""
    values = check_fits(Path(path), state.config, state.spec, print0)
    for name, network in state.networks.items():
        network.load_state_dict(values[name])
