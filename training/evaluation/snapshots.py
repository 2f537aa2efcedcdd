"""The metrics of a snapshot while training: which ones, computing them, writing them down."""

from collections.abc import Sequence
from pathlib import Path

from dnnlib.files import file_sha256
from metrics.registry import check_suitable, evaluate, prepare
from metrics.results import MetricResult, append_rows, read_rows
from metrics.weights.published import INCEPTION, Source, command, find
from torch_utils import distributed
from training.checkpoint.files import CheckpointError
from training.checkpoint.snapshot import read_snapshot
from training.config import EmaConfig
from training.data.stream import ImageDataset
from training.evaluation.images import FakeSampler, RealSet, flipped_set, reading_workers, reference_dataset
from training.networks.generator import Generator


def check_metrics(names: Sequence[str], dataset: ImageDataset) -> None:
    """Raise ValueError if a metric cannot judge the images of this data set or lacks its weights.

    Missing weights are downloaded, by the first process of a machine: call it on every rank or outside of runs.
    """
    if names:
        check_suitable(names, RealSet(reference_dataset(dataset.files)))
        prepare(names, Source())


def default_metrics() -> tuple[tuple[str, ...], str]:
    """Return the metrics to compute where none are named, and a line for people; downloads nothing.

    FID where the weights of its detector are in place, without a line; else none, and how to get the weights.
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
    """Compute metrics of a run's averaged generator, print them and record them beside its snapshot.

    Call it on every process: each looks at its part of the images. The first one returns the results, the others none.
    The seed is that of the run; `folder` beside the snapshot is where the rows of a further average go.
    """
    reference, device = reference_dataset(dataset.files), next(G.parameters()).device
    with distributed.raise_on_all_ranks():
        content_hash = file_sha256(snapshot) if distributed.rank() == 0 else ""
    fake = FakeSampler(G, reference, device, snapshot.name, content_hash)
    workers = reading_workers(device)
    results = evaluate(
        names,
        RealSet(reference, workers),
        fake,
        real_as_trained=flipped_set(names, dataset.files, len(dataset) > dataset.num_files, workers),
        device=device,
        seed=seed,
    )
    if results:
        (snapshot.parent / folder).mkdir(exist_ok=True)
        append_rows(results, snapshot.parent / folder)
    for result in results:
        print(f"{folder}: {result.summary()}" if folder else result.summary(), flush=True)
    return results


def average_folder(ema: EmaConfig, name: str) -> str:
    """The folder beside the snapshots where the rows of an average go: "" for G_ema, ema-500 for another."""
    return "" if name == "G_ema" else f"ema-{ema.averages[name]:g}"


def missed_metrics(names: Sequence[str], snapshot: Path, cur_nimg: int, folder: str = "") -> tuple[str, ...]:
    """Return those of the metrics that no row beside a snapshot is about; none where it is not of so many images seen."""
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
