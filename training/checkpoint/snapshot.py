"""Snapshots, the networks to use: saved, read (published and exported ones too), made into networks."""

import json
from pathlib import Path
from typing import Any

import torch

from dnnlib.dataclass_values import ConfigError, build
from training.checkpoint.files import (
    NETWORKS,
    SNAPSHOT_FORMAT,
    CheckpointError,
    existing_file,
    header,
    load_weights,
    read,
    write,
)
from training.checkpoint.published import import_published
from training.checkpoint.published_pickle import PublishedFileError
from training.checkpoint.safetensors_file import load_library, read_safetensors, write_safetensors
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.registry import create
from training.state import TrainState

SAFETENSORS = ".safetensors"
IMAGE_FIELDS = {"height": "height", "width": "width", "colour channels": "channels", "classes": "label_dim"}


def save_snapshot(path: Path, state: TrainState, content_hash: str = "") -> None:
    """Write G, D and G_ema with their configuration and the hash of the data set. Raises OSError."""
    networks = {name: getattr(state, name).state_dict() for name in NETWORKS}
    head = header(SNAPSHOT_FORMAT, state.config, state.spec, state.cur_nimg)
    write(path, head | {"content_hash": content_hash} | networks)


def read_snapshot(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[RunConfig, DatasetSpec, dict[str, Any]]:
    """Configuration, image format and tensors by network of a snapshot: ours, exported, or a published .pkl.

    Raises CheckpointError.
    """
    path = existing_file(path)
    try:
        if is_pickle(path):
            return import_published(path)
        values = read_exported(path) if path.suffix == SAFETENSORS else read(path, SNAPSHOT_FORMAT, device)
        return RunConfig.from_dict(values["config"]), build(DatasetSpec, values["dataset"], "dataset"), values
    except PublishedFileError as error:
        raise CheckpointError(str(error)) from error
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used: {error}") from error


def is_pickle(path: Path) -> bool:
    """Whether a file starts like a bare pickle, as published checkpoints do; ours are zip archives."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def read_exported(path: Path) -> dict[str, Any]:
    """What `export_snapshot` wrote to a .safetensors file."""
    tensors, metadata = read_safetensors(path)
    try:
        values = json.loads(metadata["styleformer"])
        for network in NETWORKS:
            prefix = f"{network}."
            values[network] = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        return values
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not an exported network of this program (no {error} in its header)") from error


def export_snapshot(source: str | Path, target: Path) -> None:
    """Rewrite any snapshot as ours (.pkl) or as .safetensors with the configuration in the header. Raises CheckpointError."""
    if target.suffix not in (".pkl", SAFETENSORS):
        raise CheckpointError(f"{target}: the name must end in .pkl or {SAFETENSORS}")
    if target.suffix == SAFETENSORS:
        load_library(target)  # before long work
    config, spec, values = read_snapshot(source)
    head = header(SNAPSHOT_FORMAT, config, spec, values["cur_nimg"])
    head["content_hash"] = values.get("content_hash", "")
    if target.suffix == SAFETENSORS:
        tensors = {f"{network}.{name}": x for network in NETWORKS for name, x in values[network].items()}
        write_safetensors(target, tensors, {"styleformer": json.dumps(head)})
    else:
        write(target, head | {network: values[network] for network in NETWORKS})


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator (G_ema) of a snapshot in eval mode. Raises CheckpointError."""
    config, spec, values = read_snapshot(path, device)
    network: Generator = create("generator", config.generator.kind, config.generator, spec).to(device)
    load_weights(network, values["G_ema"], path)
    network.run_config, network.snapshot = config, str(path)
    return network.eval().requires_grad_(False)


def load_discriminator(path: str | Path, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot in eval mode. Raises CheckpointError."""
    config, spec, values = read_snapshot(path, device)
    network: Discriminator = create("discriminator", config.discriminator.kind, config.discriminator, spec).to(device)
    load_weights(network, values["D"], path)
    return network.eval().requires_grad_(False)


def check_fits(path: Path, config: RunConfig, spec: DatasetSpec) -> None:
    """Raise CheckpointError unless the networks of a snapshot can start a run with this configuration and images."""
    theirs_config, theirs, _ = read_snapshot(path)
    differences = [
        f"{name} {getattr(theirs, field)} there, {getattr(spec, field)} here"
        for name, field in IMAGE_FIELDS.items()
        if getattr(theirs, field) != getattr(spec, field)
    ]
    for group in ("generator", "discriminator"):
        there, here = (
            {"kind": c.kind, **c.weight_settings()} for c in (getattr(theirs_config, group), getattr(config, group))
        )
        differences += [
            f"{group}.{name} {there.get(name)} there, {value} here"
            for name, value in here.items()
            if there.get(name) != value
        ]
    if differences:
        raise CheckpointError(
            f"{path}: its networks do not fit this run ({'; '.join(differences)}); use the --cfg, --cond, image size and "
            f"network options of the run it comes from"
        )


def load_networks(path: str | Path, state: TrainState) -> None:
    """Start a training state from the networks of a snapshot (fine-tuning). Raises CheckpointError."""
    check_fits(Path(path), state.config, state.spec)
    _, _, values = read_snapshot(path, state.device)
    for name in NETWORKS:
        getattr(state, name).load_state_dict(values[name])
