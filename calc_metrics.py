"""Measure the quality of a network snapshot, or of a folder of generated pictures."""

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    import torch

    from metrics.images import FakeImages
    from metrics.results import MetricResult
    from training.dataset import ImageDataset

PROXY_NOTE = " A proxy: not comparable to published numbers."
WEIGHTS_NOTE = " The detector's weights are not the published ones: not comparable to published numbers."


class ProgressBars:
    """Shows one bar for each pass over pictures."""

    def __init__(self, hidden: bool) -> None:
        self._hidden = hidden
        self._bar: tqdm | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of this pass; a new pass gets a new bar."""
        if self._bar is None or self._bar.desc != what:
            self.close()
            self._bar = tqdm(total=total, leave=False, dynamic_ncols=True, disable=True if self._hidden else None)
            self._bar.set_description_str(what)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--network", metavar="FILE", help="Network snapshot, network-snapshot-*.pkl.")
@click.option("--images", metavar="PATH", help="Folder or zip of generated pictures, in place of --network.")
@click.option("--data", metavar="PATH", help="Real pictures: zip or folder.  [default: the network's training set]")
@click.option("--metrics", required=True, metavar="LIST", help="Comma-separated names; `--metrics=list` explains them.")
@click.option(
    "--mirror", type=bool, metavar="BOOL", help="For fid50k: flipped real pictures too.  [default: as trained]"
)
@click.option(
    "--detector", metavar="FILE", help="Inception weights, .pth or .pt.  [default: $STYLEFORMER_INCEPTION or cache]"
)
@click.option("--offline", is_flag=True, help="Download no weights.")
@click.option("--seed", type=click.IntRange(0), default=0, metavar="N", help="Seed of the generated pictures.")
@click.option("--batch", type=click.IntRange(1), default=64, metavar="N", help="Pictures a detector sees at once.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1.  [default: a GPU if there is one]")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="0 = CPU; from 1 on, one GPU is used.")
@click.option("--outdir", metavar="DIR", help="Where metric-*.jsonl is appended to.  [default: beside the snapshot]")
@click.option("--cache", metavar="DIR", help="Cache folder.  [default: $STYLEFORMER_CACHE_DIR or ~/.cache/styleformer]")
@click.option("--verbose", type=bool, default=True, metavar="BOOL", help="Show progress.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Measure the quality of a network snapshot, or of a folder of generated pictures.

    Each value is printed and appended to metric-<name>.jsonl beside the snapshot.

    \b
    Examples:
      python calc_metrics.py --network=network-snapshot-000040.pkl --data=demo.zip --metrics=proxy_fd_democlf_v1
      python calc_metrics.py --network=network-snapshot-025000.pkl --metrics=fid50k_full,is50k
      python calc_metrics.py --images=out --data=pictures.zip --metrics=fid5k_full --detector=inception.pth --outdir=results
    """
    try:
        explain() if options["metrics"] == "list" else run(options)
    except (ValueError, OSError) as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error


def explain() -> None:
    """Print every metric with its definition."""
    from metrics.registry import FAMILIES, METRICS

    for name, metric in METRICS.items():
        print(f"{name}\n    {metric.definition}.{'' if metric.comparable_to_published else PROXY_NOTE}")
    examples = ", ".join(family.template.format(count="5k") for family in FAMILIES)
    print(f"The number of generated pictures may be another: {examples}; or 500 in place of 5k.")


def run(options: dict[str, Any]) -> None:
    """Check the options, measure, print and record."""
    from metrics.registry import evaluate, parse_names, prepare
    from metrics.results import append_rows
    from metrics.weights import Source
    from training.evaluation import RealSet, flipped_set, reference_dataset

    names = parse_names(options["metrics"])
    device = choose_device(options["device"], options["gpus"])
    check_sources(options)
    outdir = prepare_outdir(options)
    path, mirror = real_pictures(options)
    dataset = reference_dataset(path)
    images, network = options["images"], options["network"]
    fake = open_images(images, dataset) if images else open_network(network, dataset, device)
    cache_folder = expand(options["cache"])
    weights = Source(expand(options["detector"]), options["offline"], cache_folder)
    bars = ProgressBars(hidden=not options["verbose"])
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: tqdm.write(f"Warning: {message}", file=sys.stderr)
        prepare(names, weights, bars)
        results = evaluate(
            names,
            RealSet(dataset),
            fake,
            real_as_trained=flipped_set(names, path, mirror),
            device=device,
            batch_size=options["batch"],
            seed=options["seed"],
            cache_folder=cache_folder,
            weights=weights,
            progress=bars,
        )
    bars.close()
    if outdir is not None:
        append_rows(results, outdir)
    show(results)


def expand(path: str | None) -> Path | None:
    """Return the path of an option with ~ replaced; None where it is not given."""
    return Path(path).expanduser() if path else None


def check_sources(options: dict[str, Any]) -> None:
    """Raise UsageError unless the pictures to judge and the real ones are both named."""
    if bool(options["network"]) == bool(options["images"]):
        raise click.UsageError("Name what to measure: either --network=FILE or --images=PATH.")
    if options["images"] and not options["data"]:
        raise click.UsageError("--images needs the real pictures to compare with: --data=PATH.")


def choose_device(name: str | None, gpus: int | None) -> "torch.device":
    """Return the device to compute on; raises UsageError for one that does not exist here."""
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() and gpus != 0 else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise click.UsageError(f"--device={name}: there is no such device; write cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise click.UsageError(f"--device={name}: PyTorch sees {torch.cuda.device_count()} GPUs here.")
    return device


def prepare_outdir(options: dict[str, Any]) -> Path | None:
    """Return the folder for the rows, created if it was asked for; None = record nothing."""
    if options["outdir"]:
        outdir = Path(options["outdir"]).expanduser()
        outdir.mkdir(parents=True, exist_ok=True)
        return outdir
    return Path(options["network"]).expanduser().parent if options["network"] else None


def real_pictures(options: dict[str, Any]) -> tuple[str, bool]:
    """Return the path of the real pictures, and whether training flips them; both from the snapshot unless given."""
    if not options["network"]:
        return options["data"], bool(options["mirror"])
    from training.checkpoint import read_snapshot

    config, _, _ = read_snapshot(options["network"])
    mirror = config.data.mirror if options["mirror"] is None else options["mirror"]
    if options["data"]:
        return options["data"], mirror
    if not Path(config.data.path).expanduser().exists():
        raise click.UsageError(
            f"{options['network']} was trained on {config.data.path}, which is not here; name it with --data=PATH."
        )
    return config.data.path, mirror


def open_network(network: str, dataset: "ImageDataset", device: "torch.device") -> "FakeImages":
    """Return a snapshot's averaged generator as a source of pictures."""
    from dnnlib.download import file_sha256
    from training.checkpoint import load_generator
    from training.evaluation import FakeSampler

    path = Path(network).expanduser()
    return FakeSampler(load_generator(path, device), dataset, device, path.name, file_sha256(path))


def open_images(path: str, dataset: "ImageDataset") -> "FakeImages":
    """Return a folder or zip as a source of pictures."""
    from training.evaluation import FakeSet, RealSet, reference_dataset

    pictures = reference_dataset(path)
    ours, theirs = pictures.spec, dataset.spec
    if (ours.width, ours.height, ours.channels) != (theirs.width, theirs.height, theirs.channels):
        raise click.UsageError(
            f"--images={path} has pictures of {ours.width}x{ours.height} px with {ours.channels} channels, --data has "
            f"{theirs.width}x{theirs.height} px with {theirs.channels}; they must agree."
        )
    return FakeSet(RealSet(pictures))


def show(results: "list[MetricResult]") -> None:
    """Print a table of the values, then what they mean."""
    from metrics.registry import get

    width = max(len(result.metric) for result in results)
    print(f"{'metric':<{width}}  {'value':>10}  {'floor':>10}  {'real':>9}  {'generated':>9}  {'seconds':>7}")
    for result in results:
        floor = "" if result.floor is None else f"{result.floor:.4g}"
        counts = f"{result.num_real:>9,}  {result.num_gen:>9,}"
        print(f"{result.metric:<{width}}  {result.value:>10.4g}  {floor:>10}  {counts}  {result.seconds:>7.1f}")
        for name, value in result.details.items():
            print(f"  {name:<{width - 2}}  {value:>10.4g}")
    if any(result.floor is not None for result in results):
        print("The floor is the distance between two halves of the real pictures.")
    for result in results:
        metric = get(result.metric)
        comparability = WEIGHTS_NOTE if metric.comparable_to_published else PROXY_NOTE
        print(f"{result.metric}: {metric.definition}.{'' if result.comparable_to_published else comparability}")


if __name__ == "__main__":
    sys.exit(main())
