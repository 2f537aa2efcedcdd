"""The metrics of snapshots during training, and copies of the best one by each metric."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dnnlib.files import atomic_write, file_sha256
from metrics.registry import check_suitable, evaluate, get, prepare
from metrics.results import MetricResult, append_rows, read_rows
from metrics.weights.published import INCEPTION, Source, command, find
from torch_utils import distributed
from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import read_snapshot
from training.config import EmaConfig
from training.data.stream import ImageDataset
from training.evaluation.images import FakeSampler, RealSet, flipped_set, reading_workers, reference_dataset
from training.networks.generator import Generator
from training.run_report.curves import SAME_SETTINGS


def check_metrics(names: Sequence[str], dataset: ImageDataset) -> None:
    """Raise ValueError if a metric does not suit this data set or lacks its weights.

    The first process of each machine downloads missing weights: call it on every rank.
    """
    if names:
        check_suitable(names, RealSet(reference_dataset(dataset.files)))
        prepare(names, Source())


def default_metrics() -> tuple[tuple[str, ...], str]:
    """Return the metrics of --metrics=auto: FID if the weights of its detector are present; else none, and a line that tells why.

    Downloads nothing.
    """
    try:
        if find(INCEPTION, Source()) is not None:
            return ("fid50k_full",), ""
        reason = f"the {INCEPTION.what} are not here. To get them: {command(INCEPTION, Source())}"
    except ValueError as error:
        reason = " ".join(str(error).split())
    return (), f"Snapshots are not measured: {reason}"


def evaluate_snapshot(
    names: Sequence[str], G: Generator, dataset: ImageDataset, snapshot: Path, seed: int, folder: str = ""
) -> list[MetricResult]:
    """Compute, print and record metrics of the averaged generator of a snapshot; the seed is that of the run.

    Call it on every rank: each computes its part of the images. The first one returns the results, the others none.
    `folder` beside the snapshot is where the results of a further average are recorded.
    """
    device = next(G.parameters()).device
    workers = reading_workers(device)
    with distributed.raise_on_all_ranks():  # none waits in `evaluate` for one that failed before
        reference = reference_dataset(dataset.files)
        content_hash = file_sha256(snapshot) if distributed.rank() == 0 else ""
        fake = FakeSampler(G, reference, snapshot.name, content_hash)
        real = RealSet(reference, workers)
        real_as_trained = flipped_set(names, dataset.files, len(dataset) > dataset.num_files, workers)
    results = evaluate(names, real, fake, real_as_trained=real_as_trained, device=device, seed=seed)
    if results:
        (snapshot.parent / folder).mkdir(exist_ok=True)
        append_rows(results, snapshot.parent / folder)
    for result in results:
        print(f"{folder}: {result.summary()}" if folder else result.summary(), flush=True)
    return results


def average_folder(ema: EmaConfig, name: str) -> str:
    """Return the folder beside the snapshots for the results of an average: "" for G_ema, ema-500 for another."""
    return "" if name == "G_ema" else f"ema-{ema.averages[name]:g}"


def missed_metrics(names: Sequence[str], snapshot: Path, cur_nimg: int, folder: str = "") -> tuple[str, ...]:
    """Return those of the metrics that are not recorded for a snapshot yet; none if it is not of `cur_nimg` images."""
    try:
        if not names or not cur_nimg or read_snapshot(snapshot)[2]["cur_nimg"] != cur_nimg:
            return ()
    except CheckpointError:  # not there, or damaged
        return ()
    content_hash = file_sha256(snapshot)
    return tuple(
        name
        for name in names
        if all(row.get("snapshot_hash") != content_hash for row in read_rows(snapshot.parent / folder, name))
    )


def keep_best(results: Sequence[MetricResult], snapshot: Path) -> list[Path]:
    """Copy a snapshot to network-snapshot-best-<metric>.pkl for each metric in which it is the best of its run.

    It is compared with the rows of metric-<metric>.jsonl with the same counts, seed, images and detector, also of snapshots
    that were replaced since.
    Returns the copies that were written.
    """
    written = []
    for result in results:
        path = snapshot.with_name(f"network-snapshot-best-{result.metric}.pkl")
        if is_best(result, read_rows(snapshot.parent, result.metric)):
            with open(snapshot, "rb") as source, atomic_write(path) as target:
                shutil.copyfileobj(source, target)
            written.append(path)
    return written


def is_best(result: MetricResult, recorded: Sequence[dict[str, Any]]) -> bool:
    """Whether a result is better than every comparable row of another snapshot."""
    if not math.isfinite(result.value):
        return False
    sign = 1 if get(result.metric).higher_is_better else -1
    row = result.row()
    others = [
        other["value"]
        for other in recorded
        if other.get("snapshot_hash") != result.snapshot_hash
        and not str(other.get("snapshot")).startswith("training-state")  # whose weights are written over
        and all(other.get(name) == row[name] for name in SAME_SETTINGS)
    ]
    return all(sign * result.value > sign * value for value in others if value is not None and math.isfinite(value))
