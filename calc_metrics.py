"""Measure the quality of a network snapshot, or of a folder of generated images."""

import re
import statistics
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from dnnlib.command_line import memory_shortage

if TYPE_CHECKING:
    import torch

    from metrics.images import FakeImages
    from metrics.results import MetricResult
    from metrics.weights.published import Source
    from training.data.stream import ImageDataset

PROXY_NOTE = " Its value is not comparable to published numbers."
WEIGHTS_NOTE = " The detector's weights are not the published ones: not comparable to published numbers."


class ProgressBars:
    """Shows one bar for each pass over images."""

    def __init__(self, hidden: bool) -> None:
        self._hidden = hidden
        self._bar: tqdm | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of this pass; a new pass gets a new bar."""
        if self._bar is None or self._bar.desc != what:
            self.close()
            is_bytes = what.startswith("downloading")
            self._bar = tqdm(
                total=total,
                unit="B" if is_bytes else " images",
                unit_scale=is_bytes,
                leave=False,
                dynamic_ncols=True,
                disable=True if self._hidden else None,
            )
            self._bar.set_description_str(what)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--network", metavar="FILE", help="Network snapshot, network-snapshot-*.pkl.")
@click.option("--ema", type=float, metavar="KIMG", help="Half-life of the average to measure.  [default: the first]")
@click.option("--images", metavar="PATH", help="Folder or zip of generated images, in place of --network.")
@click.option("--data", metavar="PATH", help="Real images: zip or folder.  [default: the network's training set]")
@click.option("--metrics", required=True, metavar="LIST", help="Comma-separated names; `--metrics=list` explains them.")
@click.option("--mirror", type=bool, metavar="BOOL", help="For fid50k: flipped real images too.  [default: as trained]")
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Weights of a network (inception, vgg16, lpips, dinov2).  [default: $STYLEFORMER_INCEPTION etc. or cache]",
)
@click.option(
    "--detector-module",
    metavar="FILE",
    help="Your network for fd_module and kd_module, TorchScript or torch.export. RUNS THE CODE in it.",
)
@click.option("--offline", is_flag=True, help="Download no weights.")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Seed of the generated images.")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Measure with N seeds: mean and standard deviation.",
)
@click.option("--batch", type=click.IntRange(1), default=64, metavar="N", help="Images a detector sees at once.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1.  [default: a GPU if there is one]")
@click.option(
    "--gpus",
    type=click.IntRange(0),
    metavar="N",
    help="Processes, one per GPU; without GPUs on the CPU; 0 = CPU.  [default: 1]",
)
@click.option("--outdir", metavar="DIR", help="Where metric-*.jsonl is appended to.  [default: beside the snapshot]")
@click.option("--cache", metavar="DIR", help="Cache folder.  [default: $STYLEFORMER_CACHE_DIR or ~/.cache/styleformer]")
@click.option("--verbose", type=bool, default=True, metavar="BOOL", help="Show progress.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Measure the quality of a network snapshot, or of a folder of generated images.

    Each value is printed and appended to metric-<name>.jsonl beside the snapshot.

    \b
    Examples:
      python calc_metrics.py --network=network-snapshot-000040.pkl --data=demo.zip --metrics=proxy_fd_democlf_v1
      python calc_metrics.py --network=network-snapshot-025000.pkl --metrics=fid50k_full,is50k
      python calc_metrics.py --network=network-snapshot-025000.pkl --metrics=all-light --gpus=2 --repeat=3
      python calc_metrics.py --images=out --data=images.zip --metrics=fid5k_full --detector=inception.pth --outdir=results
    """
    try:
        explain() if options["metrics"] == "list" else run(options)
    except (ValueError, OSError) as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error
    except (RuntimeError, MemoryError) as error:
        shortage = memory_shortage(error)
        if shortage is None or options["debug"]:
            raise
        raise click.ClickException(f"{shortage}, such as --batch=8") from error


def explain() -> None:
    """Print every metric with its definition."""
    from metrics.registry import FAMILIES, METRICS

    for name, metric in METRICS.items():
        print(f"{name}\n    {metric.definition}.{'' if metric.comparable_to_published else PROXY_NOTE}")
    examples = ", ".join(family.template.format(count="5k") for family in FAMILIES)
    print(f"The number of generated images may be another: {examples}; or 500 in place of 5k.")


@dataclass(frozen=True)
class Job:
    """What every process of a measurement does."""

    names: list[str]
    network: str | None
    ema: float | None
    images: str | None
    data: str
    mirror: bool
    weights: "Source"
    outdir: Path | None
    cache_folder: Path | None
    device: str | None  # None = the GPU of this process, or the CPU
    batch: int
    seeds: range
    is_verbose: bool


def run(options: dict[str, Any]) -> None:
    """Check the options, measure, print and record."""
    from metrics.registry import parse_names, prepare
    from torch_utils import distributed
    from training.evaluation.inputs import real_images

    check_sources(options)
    names = parse_names(options["metrics"])
    num_processes = distributed.torchrun_world_size() or options["gpus"] or 1
    device = choose_device(options["device"], options["gpus"], num_processes)
    data, mirror = options["data"], bool(options["mirror"])
    if options["network"]:
        data, mirror = real_images(options["network"], data, options["mirror"])
    cache_folder = expand(options["cache"])
    weights = choose_weights(options, names, cache_folder)
    seeds = range(options["seed"], options["seed"] + options["repeat"])
    job = Job(
        names, options["network"], options["ema"], options["images"], data, mirror, weights, prepare_outdir(options, names),
        cache_folder, device, options["batch"], seeds, options["verbose"] and distributed.is_main(),
    )  # fmt: skip
    if distributed.is_main():
        check_images(job)
    prepare(names, weights)
    if num_processes > 1 and distributed.torchrun_world_size() is None:
        distributed.spawn(measure, num_processes, job, with_traceback=options["debug"])
    else:
        measure(job)


def check_images(job: Job) -> None:
    """Raise ValueError where metrics, real images and those to judge do not suit each other, before any long work.

    Says which of the images to judge are left out.
    """
    from metrics.registry import check_suitable
    from training.evaluation.images import RealSet, reference_dataset
    from training.evaluation.inputs import grids_in

    dataset = reference_dataset(job.data)
    check_suitable(job.names, RealSet(dataset), open_fake(job, dataset, "cpu"))
    if job.images and (grids := grids_in(job.images)):
        print(f"Left out: {', '.join(grids)}, {'a grid' if len(grids) == 1 else 'grids'} of the others")


def open_fake(job: Job, dataset: "ImageDataset", device: "torch.device | str", workers: int = 0) -> "FakeImages":
    """Return what is to be judged."""
    from training.evaluation.inputs import open_images, open_network

    if job.images:
        return open_images(job.images, dataset, workers)
    return open_network(str(job.network), dataset, device, job.ema)


def measure(job: Job) -> None:
    """Measure in this process, on its part of the images where there are several; the first one prints and records."""
    import torch

    from metrics.registry import evaluate
    from torch_utils import distributed
    from training.evaluation.images import RealSet, flipped_set, reading_workers, reference_dataset

    device = torch.device(job.device) if job.device else distributed.local_device()
    distributed.init(device)
    workers = reading_workers(device)
    dataset = reference_dataset(job.data)
    fake = open_fake(job, dataset, device, workers)
    bars = ProgressBars(hidden=not job.is_verbose or distributed.rank() > 0)
    results, unsaved = [], ""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: tqdm.write(f"Warning: {message}", file=sys.stderr)
        for seed in job.seeds:
            found = evaluate(
                job.names,
                RealSet(dataset, workers),
                fake,
                real_as_trained=flipped_set(job.names, dataset.files, job.mirror, workers),
                device=device,
                batch_size=job.batch,
                seed=seed,
                cache_folder=job.cache_folder,
                weights=job.weights,
                progress=bars,
            )
            unsaved = record(found, job.outdir) or unsaved  # each at once: nothing is lost if a later seed fails
            results.append(found)
    bars.close()
    if distributed.rank() == 0:
        show(results)
    if unsaved:
        print(f"Warning: rows were not saved: {unsaved}; name another folder with --outdir=DIR", file=sys.stderr)
    distributed.shutdown()


def record(found: "list[MetricResult]", outdir: Path | None) -> str:
    """Append results to the rows in a folder, if there is one; return what went wrong, empty = nothing."""
    from metrics.results import append_rows

    try:
        if outdir is not None:
            append_rows(found, outdir)
    except OSError as error:  # what took long to measure is worth showing all the same
        return str(error)
    return ""


def expand(path: str | None) -> Path | None:
    """Return the path of an option with ~ replaced; None where it is not given."""
    return Path(path).expanduser() if path else None


def check_sources(options: dict[str, Any]) -> None:
    """Raise UsageError unless the images to judge and the real ones are both named."""
    if bool(options["network"]) == bool(options["images"]):
        raise click.UsageError("Name what to measure: either --network=FILE or --images=PATH.")
    if options["images"] and options["repeat"] > 1:
        raise click.UsageError("--repeat draws new images for each seed; those of --images are always the same.")
    if options["images"] and options["ema"] is not None:
        raise click.UsageError("--ema chooses an average of --network; --images has none.")
    if options["images"] and not options["data"]:
        raise click.UsageError("--images needs the real images to compare with: --data=PATH.")


def choose_device(name: str | None, gpus: int | None, num_processes: int) -> str | None:
    """Return the device to compute on, None = one GPU a process; raises UsageError for one that does not exist here."""
    import torch

    count = torch.cuda.device_count()
    if name is None:
        if 0 < count < (gpus or 1):
            raise click.UsageError(f"--gpus={gpus}: PyTorch sees {count} GPUs here.")
        return "cpu" if gpus == 0 else None
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise click.UsageError(f"--device={name}: there is no such device; write cpu, cuda or cuda:1.")
    if name != "cpu":
        if gpus == 0 or num_processes > 1:
            raise click.UsageError(
                f"--device={name} is one GPU, which contradicts --gpus={num_processes if gpus is None else gpus}."
            )
        if int(match[1] or 0) >= count:
            raise click.UsageError(f"--device={name}: PyTorch sees {count} GPUs here.")
    return name


def choose_weights(options: dict[str, Any], names: list[str], cache_folder: Path | None) -> "Source":
    """Return where weights come from; raises UsageError for a --detector that no metric uses, or that is unclear."""
    from metrics.registry import uses_module, weights_files
    from metrics.weights.published import FILES, Source

    needed, paths = weights_files(names), {}
    for text in options["detectors"]:
        key, equals, path = text.partition("=")
        if not equals or key not in FILES:
            key, path = needed[0] if len(needed) == 1 else "", text
        if key not in needed or key in paths or not path:
            raise click.UsageError(
                f"--detector={text}: these metrics use {', '.join(needed) or 'no weights'}; write "
                f"--detector=NAME=FILE, once for each."
            )
        paths[key] = Path(path).expanduser()
    if options["detector_module"]:
        if not uses_module(names):
            raise click.UsageError(
                "--detector-module is for the metrics fd_module and kd_module; none of them is named."
            )
        paths["module"] = Path(options["detector_module"]).expanduser()
    return Source(paths, options["offline"], cache_folder, bar=options["verbose"])


def prepare_outdir(options: dict[str, Any], names: list[str]) -> Path | None:
    """Return the folder for the rows, created if it was asked for; None = record nothing.

    Raises UsageError where rows of these metrics cannot be written in the folder asked for.
    """
    from metrics.results import check_writable

    if options["outdir"]:
        outdir = Path(options["outdir"]).expanduser()
        if outdir.exists() and not outdir.is_dir():
            raise click.UsageError(f"--outdir={outdir} is a file; name a folder.")
        try:
            outdir.mkdir(parents=True, exist_ok=True)
            check_writable(outdir, names)
        except OSError as error:
            raise click.UsageError(
                f"--outdir={outdir}: metric-*.jsonl cannot be written there ({error}); name another folder."
            ) from error
        return outdir
    if not options["network"]:
        return None
    folder = Path(options["network"]).expanduser().parent
    if options["ema"] is not None:  # where training puts the rows of this average
        folder = folder / f"ema-{options['ema']:g}"
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def show(results: "list[list[MetricResult]]") -> None:
    """Print a table of the values, means where there are several seeds, then what they mean."""
    first, several = results[0], len(results) > 1
    width = max(len(name) + 2 for result in first for name in (result.metric, *result.details))
    deviation = f"  {'std':>9}" if several else ""
    print(
        f"{'metric':<{width}}  {'value':>10}{deviation}  {'floor':>10}  {'real':>9}  {'generated':>9}  {'seconds':>7}"
    )
    for index, result in enumerate(first):
        same = [found[index] for found in results]
        floor = "" if result.floor is None else f"{result.floor:.4g}"
        seconds = sum(one.seconds for one in same)
        counts = f"  {floor:>10}  {result.num_real:>9,}  {result.num_gen:>9,}  {seconds:>7.1f}"
        print(f"{result.metric:<{width}}  {mean_and_std([one.value for one in same])}{counts}")
        for name in result.details:
            print(f"  {name:<{width - 2}}  {mean_and_std([one.details[name] for one in same])}")
    if several:
        print(f"Means and standard deviations over {len(results)} seeds, {first[0].seed} to {results[-1][0].seed}.")
    if any(result.floor is not None for result in first):
        print("The floor is the distance between two halves of the real images.")
    if cached := [result.metric for result in first if result.real_cached]:
        print(f"From the cache: the features of the real images, for {', '.join(cached)}.")
    for result in first:
        print(explanation(result))


def explanation(result: "MetricResult") -> str:
    """Return what a value means, in one line."""
    from metrics.registry import get

    metric = get(result.metric)
    comparability = WEIGHTS_NOTE if metric.comparable_to_published else PROXY_NOTE
    return f"{result.metric}: {metric.definition}.{'' if result.comparable_to_published else comparability}"


def mean_and_std(values: list[float]) -> str:
    """Return the mean of values, and their standard deviation (ddof 1) where there are several, as columns."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:>10.4g}"
    return f"{mean:>10.4g}  {statistics.stdev(values):>9.3g}"


if __name__ == "__main__":
    sys.exit(main())
