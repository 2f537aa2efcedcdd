"""Generate pictures from a network snapshot."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tqdm import tqdm

from dnnlib.parallel import available_cpus
from dnnlib.picture_writer import PictureWriter
from dnnlib.text import parse_int_list

if TYPE_CHECKING:
    from torch import Tensor

    from training.networks.generator import Generator

NOISE_MODES = ("const", "random", "none")
MAX_THREADS = 8  # that write pictures


def seed_list(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """Seeds from ranges and lists, such as 0-35,100."""
    try:
        return [] if value is None else parse_int_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--network", required=True, metavar="FILE", help="Network snapshot, network-snapshot-*.pkl.")
@click.option("--seeds", callback=seed_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option("--outdir", metavar="DIR", help="Where the pictures go: seed0000.png, ...")
@click.option("--trunc", default=1.0, metavar="PSI", help="Truncation: 1 = full variety, 0 = the mean picture.")
@click.option("--class", "class_name", metavar="CLASS", help="Class by number or name.  [default: seed modulo classes]")
@click.option("--noise-mode", default="const", type=click.Choice(NOISE_MODES), help="Noise of the layers.")
@click.option(
    "--trunc-cutoff", type=click.IntRange(0), metavar="N", help="Truncate only the first N styles.  [default: all]"
)
@click.option(
    "--grid", is_flag=False, flag_value="auto", metavar="[RxC]", help="Also write them side by side, R rows of C."
)
@click.option("--format", "extension", default="png", type=click.Choice(["png", "jpg", "webp"]), help="File type.")
@click.option("--batch", default=32, type=click.IntRange(1), metavar="N", help="Pictures generated at once.")
@click.option("--export", metavar="FILE", help="Rewrite the snapshot as .pkl of this program or as .safetensors.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Generate pictures from a network snapshot; the same seed gives the same picture every time.

    \b
    Examples:
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-35 --outdir=out --grid
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-39 --outdir=out --grid=4x10 --format=jpg
      python generate.py --network=published.pkl --export=ours.safetensors
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-9 --class=7 --trunc=0.7 --outdir=sevens
    """
    try:
        run(options)
    except (ValueError, OSError) as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error


def run(options: dict[str, Any]) -> None:
    """Load the network, then write every seed's picture; or rewrite the snapshot."""
    import torch

    from training.checkpoint import export_snapshot, load_generator

    if options["export"]:
        export_snapshot(options["network"], Path(options["export"]).expanduser())
        print(f"Written: {options['export']}")
        return
    seeds: list[int] = options["seeds"]
    if not seeds or not options["outdir"]:
        raise ValueError("say which pictures and where to: --seeds=0-35 --outdir=out (or --export=FILE)")
    grid = grid_shape(options["grid"], len(seeds))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = load_generator(options["network"], device)
    request = Request(
        class_index=find_class(generator, options["class_name"]),
        psi=options["trunc"],
        cutoff=options["trunc_cutoff"],
        noise_mode=options["noise_mode"],
    )
    outdir = Path(options["outdir"]).expanduser()
    outdir.mkdir(parents=True, exist_ok=True)
    batch = 1 if options["noise_mode"] == "random" else options["batch"]  # random noise follows from each seed alone
    write_pictures(generator, seeds, request, outdir, options["extension"], batch, grid)


@dataclass(frozen=True)
class Request:
    """What all pictures of a call have in common."""

    class_index: int | None  # None = seed modulo the number of classes
    psi: float
    cutoff: int | None
    noise_mode: str


def grid_shape(text: str | None, count: int) -> tuple[int, int] | None:
    """Rows and columns of --grid, "auto" or "RxC"; None = no grid. Raises ValueError."""
    if text is None:
        return None
    if text == "auto":
        columns = math.ceil(math.sqrt(count))
        return math.ceil(count / columns), columns
    rows, x, columns_text = text.lower().partition("x")
    if not (x and rows.isdecimal() and columns_text.isdecimal() and int(rows) * int(columns_text) >= 1):
        raise ValueError(f"--grid={text}: write it as rows x columns, such as 4x10, or --grid alone")
    if int(rows) * int(columns_text) < count:
        raise ValueError(
            f"--grid={text} has room for {int(rows) * int(columns_text)} pictures, but there are {count} seeds"
        )
    return int(rows), int(columns_text)


def write_pictures(
    generator: "Generator",
    seeds: list[int],
    request: Request,
    outdir: Path,
    extension: str,
    batch: int,
    grid: tuple[int, int] | None,
) -> None:
    """Write seed0000.png, ... and the grid."""
    import torch

    from training.preview import save_grid

    pictures = []
    threads = min(available_cpus(), MAX_THREADS)
    with tqdm(total=len(seeds), unit=" images", disable=None) as bar, PictureWriter(threads) as writer:
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            images = generate(generator, part, request).cpu()
            for seed, pixels in zip(part, images.permute(0, 2, 3, 1).numpy(), strict=True):
                writer.add(outdir / f"seed{seed:04d}.{extension}", pixels)
            if grid:
                pictures.append(images)
            bar.update(len(part))
    print(f"{len(seeds)} pictures are in {outdir}")
    if grid:
        path = outdir / f"grid.{extension}"
        save_grid(path, torch.cat(pictures), columns=grid[1])
        print(f"Side by side: {path}")


def generate(generator: "Generator", seeds: list[int], request: Request) -> "Tensor":
    """The pictures of some seeds, uint8 [seeds, channels, height, width]."""
    import torch

    from training.preview import to_uint8

    device = next(generator.parameters()).device
    latents = np.concatenate([np.random.RandomState(seed).randn(1, generator.z_dim) for seed in seeds])
    z = torch.as_tensor(latents, dtype=torch.float32, device=device)
    c = torch.zeros(len(seeds), generator.c_dim, device=device)
    if generator.c_dim:
        for row, seed in zip(c, seeds, strict=True):
            row[seed % generator.c_dim if request.class_index is None else request.class_index] = 1
    torch.manual_seed(seeds[0])  # random noise
    with torch.no_grad():
        return to_uint8(generator(z, c, request.psi, request.cutoff, noise_mode=request.noise_mode))


def find_class(generator: "Generator", name: str | None) -> int | None:
    """The index of a class given by number or name; raises ValueError."""
    if name is None:
        return None
    if generator.c_dim == 0:
        raise ValueError(f"--class={name}: this network was trained without classes; leave the option out")
    if name in generator.class_names:
        return generator.class_names.index(name)
    if name.isdecimal() and int(name) < generator.c_dim:
        return int(name)
    names = f" or one of {', '.join(generator.class_names)}" if generator.class_names else ""
    raise ValueError(f"--class={name}: there is no such class; choose 0-{generator.c_dim - 1}{names}")


if __name__ == "__main__":
    sys.exit(main())
