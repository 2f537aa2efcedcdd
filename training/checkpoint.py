"""Snapshots (networks to use) and state files (all that a restart needs): plain data, written whole, read without code."""

import json
import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dnnlib.dataclass_values import ConfigError, build, to_plain
from dnnlib.files import atomic_write, temporary_name
from training.config import DatasetSpec, RunConfig
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.published import import_published
from training.published_pickle import PublishedFileError
from training.safetensors_file import read_safetensors, write_safetensors
from training.state import TrainState

SNAPSHOT_FORMAT = "styleformer-snapshot"
STATE_FORMAT = "styleformer-training-state"
VERSION = 1

SAFETENSORS = ".safetensors"
NETWORKS = ("G", "D", "G_ema")
STATE_LATEST = "training-state-latest.pt"
STATE_PREVIOUS = "training-state-previous.pt"
STATE_NEW = "training-state-new.pt"  # whole, but not yet called the latest: what a kill between two renamings may leave

PICTURE_FIELDS = {"height": "height", "width": "width", "colour channels": "channels", "classes": "label_dim"}
ARCHITECTURE_FIELDS = {  # settings that decide what the weights compute
    "generator": (
        "widths",
        "layers",
        "head_width",
        "minimum_heads",
        "linformer",
        "linformer_tokens",
        "linformer_from_px",
        "z_dim",
        "w_dim",
        "mapping_layers",
    ),
    "discriminator": ("architecture", "channel_base", "channel_max", "mapping_layers"),
}


class CheckpointError(ValueError):
    """A file that cannot be read as what was asked for; the message names it and the remedy."""


def write(path: Path, values: dict[str, Any]) -> None:
    """`torch.save` plain data under a name that appears only when the file is whole. Raises OSError.

    Tensors of a GPU are written as those of the CPU: the file opens on any machine.
    """
    values = on_cpu(values)
    with atomic_write(path) as file:
        try:
            torch.save(values, file)
        except RuntimeError as error:  # how torch passes on that it could not write
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def existing_file(path: str | Path) -> Path:
    """The path of a file that is there. Raises CheckpointError."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        snapshots = sorted(path.glob("network-snapshot-[0-9]*.pkl"))
        example = f", such as {snapshots[-1]}" if snapshots else ""
        raise CheckpointError(f"{path}: this is a folder; name a file in it{example}")
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise CheckpointError(f"{path}: this is an address, and networks are read from files; download it first")
    raise CheckpointError(f"{path}: there is no such file")


def on_cpu(value: Any) -> Any:
    """Nested plain data with all tensors in the memory of the CPU."""
    if isinstance(value, dict):
        return {key: on_cpu(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [on_cpu(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def read(path: str | Path, expected_format: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The plain data of a file of ours; runs no code from it. Raises CheckpointError."""
    path = existing_file(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(
                f"{path}: damaged: the checksum of {damaged} is wrong; use another copy or an older file"
            )
        values = torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error,
        NotImplementedError,
    ) as error:  # fmt: skip
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run what is in it
            reason = "it holds more than tensors and plain values; nothing in it is run"
        raise CheckpointError(f"{path}: not a file of this program, or damaged ({reason})") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != expected_format:
        what = {SNAPSHOT_FORMAT: "a network snapshot (network-snapshot-*.pkl)", STATE_FORMAT: "a training state"}
        raise CheckpointError(
            f"{path}: this is not {what[expected_format]}; it is {what.get(str(found), 'something else')}"
        )
    if values["version"] > VERSION:
        raise CheckpointError(f"{path}: written by a newer version of this program (format {values['version']})")
    return values


def header(file_format: str, config: RunConfig, spec: DatasetSpec, cur_nimg: int) -> dict[str, Any]:
    """What both kinds of file begin with."""
    return {
        "format": file_format,
        "version": VERSION,
        "config": config.to_dict(),
        "dataset": to_plain(vars(spec)),
        "cur_nimg": cur_nimg,
    }


def save_snapshot(path: Path, state: TrainState) -> None:
    """Write G, D and G_ema with their configuration. Raises OSError."""
    networks = {name: getattr(state, name).state_dict() for name in NETWORKS}
    write(path, header(SNAPSHOT_FORMAT, state.config, state.spec, state.cur_nimg) | networks)


def read_snapshot(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[RunConfig, DatasetSpec, dict[str, Any]]:
    """Configuration, picture format and tensors by network of a snapshot: ours, exported, or a published .pkl.

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
    try:
        tensors, metadata = read_safetensors(path)
        values = json.loads(metadata["styleformer"])
        for network in NETWORKS:
            prefix = f"{network}."
            values[network] = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        return values
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an exported network, or damaged ({error})") from error


def export_snapshot(source: str | Path, target: Path) -> None:
    """Rewrite any snapshot as ours (.pkl) or as .safetensors with the configuration in the header. Raises CheckpointError."""
    if target.suffix not in (".pkl", SAFETENSORS):
        raise CheckpointError(f"{target}: the name must end in .pkl or {SAFETENSORS}")
    config, spec, values = read_snapshot(source)
    head = header(SNAPSHOT_FORMAT, config, spec, values["cur_nimg"])
    if target.suffix == SAFETENSORS:
        tensors = {f"{network}.{name}": x for network in NETWORKS for name, x in values[network].items()}
        write_safetensors(target, tensors, {"styleformer": json.dumps(head)})
    else:
        write(target, head | {network: values[network] for network in NETWORKS})


def load_weights(network: torch.nn.Module, weights: dict[str, Any], path: str | Path) -> None:
    """`load_state_dict` with an error that names the file."""
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: its weights do not fit its configuration ({reason})") from error


def load_generator(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The averaged generator (G_ema) of a snapshot in eval mode. Raises CheckpointError."""
    config, spec, values = read_snapshot(path, device)
    network = Generator(config.generator, spec).to(device)
    load_weights(network, values["G_ema"], path)
    return network.eval().requires_grad_(False)


def load_discriminator(path: str | Path, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator of a snapshot in eval mode. Raises CheckpointError."""
    config, spec, values = read_snapshot(path, device)
    network = Discriminator(config.discriminator, spec).to(device)
    load_weights(network, values["D"], path)
    return network.eval().requires_grad_(False)


def check_fits(path: Path, config: RunConfig, spec: DatasetSpec) -> None:
    """Raise CheckpointError unless the networks of a snapshot can start a run with this configuration and pictures."""
    theirs_config, theirs, _ = read_snapshot(path)
    differences = [
        f"{name} {getattr(theirs, field)} there, {getattr(spec, field)} here"
        for name, field in PICTURE_FIELDS.items()
        if getattr(theirs, field) != getattr(spec, field)
    ]
    for group, fields in ARCHITECTURE_FIELDS.items():
        pair = getattr(theirs_config, group), getattr(config, group)
        differences += [
            f"{group}.{field} {getattr(pair[0], field)} there, {getattr(pair[1], field)} here"
            for field in fields
            if getattr(pair[0], field) != getattr(pair[1], field)
            and (not field.startswith("linformer_") or config.generator.linformer)
        ]
    if differences:
        raise CheckpointError(
            f"{path}: its networks do not fit this run ({'; '.join(differences)}); use the --cfg, --cond, picture size and "
            f"network options of the run it comes from"
        )


def load_networks(path: str | Path, state: TrainState) -> None:
    """Start a training state from the networks of a snapshot (fine-tuning). Raises CheckpointError."""
    check_fits(Path(path), state.config, state.spec)
    _, _, values = read_snapshot(path, state.device)
    for name in NETWORKS:
        getattr(state, name).load_state_dict(values[name])


def state_values(state: TrainState, content_hash: str = "") -> dict[str, Any]:
    """What a state file holds, and which pictures it was trained on; call it on every rank."""
    head = header(STATE_FORMAT, state.config, state.spec, state.cur_nimg)
    return head | {"content_hash": content_hash, "state": state.state_dict()}


def write_state(run_dir: Path, values: dict[str, Any]) -> None:
    """Write `state_values` as the latest state, keeping the one before it; at no moment is there none. Raises OSError."""
    latest, previous, new = (run_dir / name for name in (STATE_LATEST, STATE_PREVIOUS, STATE_NEW))
    try:
        write(new, values)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if latest.exists():
        keep_as(latest, previous)
    os.replace(new, latest)


def keep_as(latest: Path, previous: Path) -> None:
    """Give a file a second name, or another one where the file system knows no second names."""
    link = temporary_name(previous)
    try:
        os.link(latest, link)
        os.replace(link, previous)
    except OSError:
        os.replace(latest, previous)
    finally:
        link.unlink(missing_ok=True)


def find_state(run_dir: Path, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """The newest readable training state of a run folder, with its header; None where there is no state file at all.

    Raises CheckpointError if there are some, but all damaged.
    """
    problem: CheckpointError | None = None
    for name in (STATE_LATEST, STATE_NEW, STATE_PREVIOUS):
        if not (run_dir / name).exists():
            continue
        try:
            values = read(run_dir / name, STATE_FORMAT)
        except CheckpointError as error:
            problem = error
            say(f"Warning: {error}; looking for an older state")
            continue
        if problem is not None:
            say(f"Going back to {name} of {values['cur_nimg'] / 1000:g} kimg")
        return values
    if problem is not None:
        raise CheckpointError(
            f"{run_dir}: no training state there can be read; start a new run from its newest snapshot: --resume=FILE"
        ) from problem
    return None


def restore(state: TrainState, values: dict[str, Any], path: Path) -> None:
    """Go on from what `find_state` returned; raises CheckpointError where it is not of such networks."""
    try:
        state.load_state_dict(values["state"])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        frozen = state.config.discriminator.freeze_layers
        counting = (
            f". --freezed={frozen} counts the layers in another order than older versions did; start from a snapshot: "
            f"--resume=network-snapshot-....pkl"
        )
        raise CheckpointError(
            f"{path}: its training state does not fit these settings or this version ({reason}){counting if frozen else ''}"
        ) from error
