"""Compute quality metrics of a network snapshot, or of a folder of generated images."""

import re
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from dnnlib.command_line import SETTINGS, Command
from dnnlib.console import plain_warnings, protect_console
from dnnlib.paths import require_outside, user_path

if TYPE_CHECKING:
    import torch

    from metrics.images import FakeImages
    from metrics.results import MetricResult
    from metrics.weights.published import Source
    from training.data.stream import ImageDataset

PROXY_NOTE = " Its value is not comparable to published numbers."
WEIGHTS_NOTE = " The detector's weights are not the published ones: not comparable to published numbers."


class ProgressBars:
    """Shows one bar for each pass over images; called with what is done, how much of it, and the total."""

    def __init__(self, hidden: bool) -> None:
        self.disable = hidden or None  # None = where the console is no terminal
        self.what, self.bar = "", tqdm(disable=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self.bar.close()
            self.what = what
            self.bar = tqdm(
                desc=what, total=total, unit=" images", leave=False, dynamic_ncols=True, disable=self.disable
            )
        self.bar.update(done - self.bar.n)


@click.command(cls=Command, context_settings=SETTINGS)
@click.option(
    "--network",
    metavar="FILE",
    help="network-snapshot-*.pkl or training-state-*.pt: file, https://... or hf://user/repo/file.",
)
@click.option(
    "--ema",
    type=float,
    metavar="KIMG",
    help="Half-life of the averaged generator; ema-KIMG/ has its results.  [default: the first]",
)
@click.option("--images", metavar="PATH", help="Folder or zip of generated images, instead of --network.")
@click.option(
    "--data",
    metavar="PATH",
    help="Data set to compare with, folder or zip.  [default: the training set of the network]",
)
@click.option("--metrics", required=True, metavar="LIST", help="Comma-separated names; --metrics=list describes them.")
@click.option("--mirror", type=bool, metavar="BOOL", help="fid50k: add flipped real images.  [default: as in training]")
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Weights file of inception, vgg16, lpips or dinov2.  [default: $STYLEFORMER_INCEPTION etc., or the cache]",
)
@click.option(
    "--detector-module",
    metavar="FILE",
    help="Feature network for fd_module and kd_module, TorchScript or torch.export. Its code IS RUN.",
)
@click.option("--offline", is_flag=True, help="Do not download weights.")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Random seed of the generated images.")
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="Repeat with N seeds; prints mean and standard deviation.",
)
@click.option("--batch", type=click.IntRange(1), default=64, metavar="N", help="Batch size of the feature networks.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1.  [default: GPU if available]")
@click.option(
    "--gpus", type=click.IntRange(0), metavar="N", help="Number of GPUs, one process each; 0 = CPU.  [default: 1]"
)
@click.option("--outdir", metavar="DIR", help="Folder for metric-*.jsonl.  [default: that of the snapshot]")
@click.option("--cache", metavar="DIR", help="Cache folder.  [default: $STYLEFORMER_CACHE_DIR or ~/.cache/styleformer]")
@click.option("--verbose", type=bool, default=True, metavar="BOOL", help="Show progress bars.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Compute quality metrics of a network snapshot, or of a folder of generated images.

    Results are printed and appended to metric-<name>.jsonl in the folder of the snapshot.

    \b
    Examples:
      python calc_metrics.py --network=network-snapshot-000040.pkl --data=demo.zip --metrics=proxy_fd_clf_v1
      python calc_metrics.py --network=network-snapshot-025000.pkl --metrics=fid50k_full,is50k
      python calc_metrics.py --network=network-snapshot-025000.pkl --metrics=all-light --gpus=2 --repeat=3
      python calc_metrics.py --images=out --data=images.zip --metrics=fid5k_full --detector=inception.pth --outdir=results
    """
    explain() if options["metrics"] == "list" else run(options)


def explain() -> None:
    from metrics.registry import FAMILIES, METRICS

    for name, metric in METRICS.items():
        print(f"{name}\n    {metric.definition}.{'' if metric.comparable_to_published else PROXY_NOTE}")
    examples = ", ".join(family.template.format(count="5k") for family in FAMILIES)
    print(f"Any number of generated images works: {examples}, fid500_full.")


@dataclass(frozen=True)
class Job:
    """What every process of a measurement needs."""

    options: dict[str, Any]  # of the command line; data and mirror as they follow from the network
    names: list[str]
    weights: "Source"
    outdir: Path | None  # None = record nothing
    device: str | None  # None = the GPU of this process, or the CPU
    is_training_set: bool | None  # the real images are those that the network was trained on; None = not known


def run(options: dict[str, Any]) -> None:
    """Check the options, measure, print and record."""
    from metrics.registry import parse_names, prepare
    from torch_utils import distributed
    from training.evaluation.images import reference_dataset
    from training.evaluation.inputs import is_training_set, real_images

    check_sources(options)
    names = parse_names(options["metrics"])
    fetch_network(options)
    num_processes = distributed.torchrun_world_size() or options["gpus"] or 1
    device = choose_device(options["device"], options["gpus"], num_processes)
    data, mirror = options["data"], options["mirror"]
    if options["network"]:
        data, mirror = real_images(options["network"], data, mirror)
    weights, outdir = choose_weights(options, names), prepare_outdir(options, names)
    dataset = reference_dataset(data)
    is_same = is_training_set(options["network"], dataset) if options["network"] and distributed.is_main() else None
    job = Job(options | {"data": data, "mirror": mirror}, names, weights, outdir, device, is_same)
    if distributed.is_main():
        check_images(job, dataset)
    prepare(names, weights)
    if options["gpus"]:
        distributed.warn_of_shared_cpu(num_processes)
    if num_processes > 1 and distributed.torchrun_world_size() is None:
        distributed.spawn(measure, num_processes, job, with_traceback=options["debug"])
    else:
        measure(job)


def fetch_network(options: dict[str, Any]) -> None:
    """Download --network if it is an address; results are then written to the current folder by default."""
    from dnnlib.urls import is_address, local_file
    from metrics.cache import default_folder

    if options["network"] and is_address(options["network"]):
        folder = user_path(options["cache"]) if options["cache"] else default_folder()
        options["network"] = local_file(options["network"], folder)
        options["outdir"] = options["outdir"] or "."


def check_images(job: Job, dataset: "ImageDataset") -> None:
    """Raise ValueError where metrics, real and generated images do not suit each other.

    Prints which real images are used, whether the network was trained on them, which files are left out, and where metrics
    take a part of --images.
    """
    from metrics.registry import check_suitable, get
    from training.evaluation.images import FakeSampler, FakeSet, RealSet
    from training.evaluation.inputs import describe_relation, grids_in

    real, fake = RealSet(dataset), open_fake(job, dataset, "cpu")
    check_suitable(job.names, real, fake)
    images, relation = job.options["images"], ""
    if isinstance(fake, FakeSampler):
        relation = f", {describe_relation(job.is_training_set, dataset, fake.G.run_config)}"
    print(f"Real images: {real.location}{relation}")
    if images and (grids := grids_in(images)):
        print(f"Left out: {', '.join(grids)} (image grids)")
    if images and (parts := sorted({get(name).num_gen for name in job.names} - {fake.count})):
        counts = " and ".join(map(str, parts))
        print(f"Generated images: the first {counts} of {fake.count} in {images}, in the order of their names")
    notes = dataset.notes() + (fake.notes() if isinstance(fake, FakeSet) else [])
    for note in dict.fromkeys(notes):  # once, where both are the same images
        print(note)


def open_fake(job: Job, dataset: "ImageDataset", device: "torch.device | str", workers: int = 0) -> "FakeImages":
    from training.evaluation.inputs import open_images, open_network

    if job.options["images"]:
        return open_images(job.options["images"], dataset, workers)
    return open_network(job.options["network"], dataset, device, job.options["ema"])


def measure(job: Job) -> None:
    """Measure in this process, on its part of the images where there are several; the first one prints and records."""
    import torch

    from metrics.registry import evaluate
    from metrics.results import append_rows
    from torch_utils import distributed
    from torch_utils.ops import native
    from training.evaluation.images import RealSet, flipped_set, reading_workers, reference_dataset
    from training.precision import resolve_precision, set_arithmetic

    device = torch.device(job.device) if job.device else distributed.local_device()
    distributed.init(device)
    set_arithmetic(resolve_precision("fp32", device))
    native.prepare(device)
    workers = reading_workers(device)
    options, dataset = job.options, reference_dataset(job.options["data"])
    fake = open_fake(job, dataset, device, workers)
    if options["network"]:
        distributed.assert_equal_across_ranks(
            "the networks", [fake.content_hash], "the file was replaced meanwhile (start again)"
        )
    bars = ProgressBars(hidden=not options["verbose"] or distributed.rank() > 0)
    results, unsaved = [], ""
    with plain_warnings(lambda line: tqdm.write(line, file=sys.stderr)):
        for seed in range(options["seed"], options["seed"] + options["repeat"]):
            found = evaluate(
                job.names,
                RealSet(dataset, workers),
                fake,
                real_as_trained=flipped_set(job.names, dataset.files, bool(options["mirror"]), workers),
                device=device,
                batch_size=options["batch"],
                seed=seed,
                weights=job.weights,
                progress=bars,
            )
            found = [replace(result, real_is_training_set=job.is_training_set) for result in found]
            results.append(found)
            try:
                if job.outdir is not None:
                    append_rows(found, job.outdir)  # each at once: nothing is lost if a later seed fails
            except OSError as error:  # the values are worth printing all the same
                unsaved = str(error)
    bars.bar.close()
    if distributed.rank() == 0:
        show(results)
    if unsaved:
        print(f"Warning: results were not saved: {unsaved}; name another folder with --outdir=DIR", file=sys.stderr)
    distributed.shutdown()


def check_sources(options: dict[str, Any]) -> None:
    """Raise UsageError unless the generated images and the real ones are both named."""
    if bool(options["network"]) == bool(options["images"]):
        raise click.UsageError("Name what to measure: either --network=FILE or --images=PATH.")
    if options["images"] and options["repeat"] > 1:
        raise click.UsageError("--repeat draws new images for each seed; those of --images are always the same.")
    if options["images"] and options["ema"] is not None:
        raise click.UsageError("--ema chooses an average of --network; --images has none.")
    if options["images"] and not options["data"]:
        raise click.UsageError("--images needs the real images to compare with: --data=PATH.")


def choose_device(name: str | None, gpus: int | None, num_processes: int) -> str | None:
    """Return the device to compute on, None = one GPU per process; raises UsageError for one that does not exist."""
    import torch

    from torch_utils import distributed

    if name is None:
        distributed.check_gpus(distributed.local_world_size() if distributed.is_started() else gpus or 1)
        return "cpu" if gpus == 0 else None
    count = torch.cuda.device_count()
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise click.UsageError(f"--device={name}: there is no such device; write cpu, cuda or cuda:1.")
    if name != "cpu" and (gpus == 0 or num_processes > 1):
        raise click.UsageError(f"--device={name} is one GPU, which contradicts --gpus={gpus}.")
    if name != "cpu" and int(match[1] or 0) >= count:
        raise click.UsageError(f"--device={name}: PyTorch sees {count} GPUs here.")
    return name


def choose_weights(options: dict[str, Any], names: list[str]) -> "Source":
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
        paths[key] = user_path(path)
    if options["detector_module"]:
        if not uses_module(names):
            raise click.UsageError("--detector-module is for the metrics fd_module and kd_module; none is named.")
        paths["module"] = user_path(options["detector_module"])
    cache_folder = user_path(options["cache"]) if options["cache"] else None
    return Source(paths, options["offline"], cache_folder, bar=options["verbose"])


def prepare_outdir(options: dict[str, Any], names: list[str]) -> Path | None:
    """Return the folder for the results, created if it was asked for; None = record nothing.

    Raises UsageError where results of these metrics cannot be written in the folder asked for.
    """
    from metrics.results import check_writable

    for option in ("outdir", "cache"):
        for source in ("images", "data"):
            if options[option] and options[source]:
                require_outside(options[option], f"--{option}", options[source], f"--{source}")
    if not options["outdir"]:
        if not options["network"]:
            return None
        outdir = user_path(options["network"]).parent / folder_of_average(options)
        outdir.mkdir(exist_ok=True)
        return outdir
    outdir = user_path(options["outdir"]) / folder_of_average(options)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        check_writable(outdir, names)
    except OSError as error:
        raise click.UsageError(
            f"--outdir={outdir}: metric-*.jsonl cannot be written there ({error}); name another folder."
        ) from error
    return outdir


def folder_of_average(options: dict[str, Any]) -> str:
    """Return the folder for results of --ema, as in training: "" for the first average. Raises ValueError for an unknown one."""
    from training.checkpoint.snapshot import average_name, read_snapshot
    from training.evaluation.snapshots import average_folder

    if options["ema"] is None:
        return ""
    config = read_snapshot(options["network"])[0]
    return average_folder(config.ema, average_name(options["network"], config, options["ema"]))


def show(results: "list[list[MetricResult]]") -> None:
    """Print a table of the values, means where there are several seeds, then the definitions."""
    first, several = results[0], len(results) > 1
    width = max(len(name) + 2 for result in first for name in (result.metric, *result.details))
    std = f"  {'std':>9}" if several else ""
    print(f"{'metric':<{width}}  {'value':>10}{std}  {'floor':>10}  {'real':>9}  {'generated':>9}  {'seconds':>7}")
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
    """Return the definition of a value and whether published numbers compare, in one line."""
    from metrics.registry import get

    metric = get(result.metric)
    comparability = WEIGHTS_NOTE if metric.comparable_to_published else PROXY_NOTE
    return f"{result.metric}: {metric.definition}.{'' if result.comparable_to_published else comparability}"


def mean_and_std(values: list[float]) -> str:
    """Return the mean of values, and their standard deviation (ddof 1) where there are several, as columns."""
    mean = f"{statistics.mean(values):>10.4g}"
    return mean if len(values) == 1 else f"{mean}  {statistics.stdev(values):>9.3g}"


if __name__ == "__main__":
    protect_console()
    sys.exit(main())
