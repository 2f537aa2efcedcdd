"""Generate pictures from a network snapshot."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tqdm import tqdm

from dnnlib.text import parse_int_list

if TYPE_CHECKING:
    from torch import Tensor

    from training.networks.generator import Generator

NOISE_MODES = ("const", "random", "none")


def seed_list(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Seeds from ranges and lists, such as 0-35,100."""
    try:
        return parse_int_list(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--network", required=True, metavar="FILE", help="Network snapshot, network-snapshot-*.pkl.")
@click.option("--seeds", required=True, callback=seed_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option("--outdir", required=True, metavar="DIR", help="Where the pictures go: seed0000.png, ...")
@click.option("--trunc", default=1.0, metavar="PSI", help="Truncation: 1 = full variety, 0 = the mean picture.")
@click.option("--class", "class_name", metavar="CLASS", help="Class by number or name.  [default: seed modulo classes]")
@click.option("--noise-mode", default="const", type=click.Choice(NOISE_MODES), help="Noise of the layers.")
@click.option("--grid", is_flag=True, help="Also write all pictures side by side as grid.png.")
@click.option("--batch", default=32, type=click.IntRange(1), metavar="N", help="Pictures generated at once.")
@click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")
def main(**options: Any) -> None:
    """Generate pictures from a network snapshot; the same seed gives the same picture every time.

    \b
    Examples:
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-35 --outdir=out --grid
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-9 --class=7 --trunc=0.7 --outdir=sevens
    """
    try:
        run(options)
    except ValueError as error:  # the messages of our own checks say what to do
        if options["debug"]:
            raise
        raise click.ClickException(str(error)) from error


def run(options: dict[str, Any]) -> None:
    """Load the network, then write every seed's picture."""
    import torch

    from training.checkpoint import load_generator
    from training.preview import save_grid

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = load_generator(options["network"], device)
    class_index = find_class(generator, options["class_name"])
    outdir = Path(options["outdir"]).expanduser()
    outdir.mkdir(parents=True, exist_ok=True)
    seeds: list[int] = options["seeds"]
    batch = 1 if options["noise_mode"] == "random" else options["batch"]  # random noise follows from each seed alone
    pictures = []
    with tqdm(total=len(seeds), unit="img", disable=None) as bar:
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            images = generate(generator, part, class_index, options["trunc"], options["noise_mode"]).cpu()
            for seed, image in zip(part, images, strict=True):
                save_grid(outdir / f"seed{seed:04d}.png", image.unsqueeze(0), columns=1)
            if options["grid"]:
                pictures.append(images)
            bar.update(len(part))
    print(f"{len(seeds)} pictures are in {outdir}")
    if options["grid"]:
        grid = torch.cat(pictures)
        save_grid(outdir / "grid.png", grid, columns=math.ceil(math.sqrt(len(grid))))
        print(f"Side by side: {outdir / 'grid.png'}")


def generate(
    generator: "Generator", seeds: list[int], class_index: int | None, psi: float, noise_mode: str
) -> "Tensor":
    """The pictures of some seeds, uint8 [seeds, channels, height, width]; without a class, seed k shows class k modulo all."""
    import torch

    from training.preview import to_uint8

    device = next(generator.parameters()).device
    latents = np.concatenate([np.random.RandomState(seed).randn(1, generator.z_dim) for seed in seeds])
    z = torch.as_tensor(latents, dtype=torch.float32, device=device)
    c = torch.zeros(len(seeds), generator.c_dim, device=device)
    if generator.c_dim:
        for row, seed in zip(c, seeds, strict=True):
            row[seed % generator.c_dim if class_index is None else class_index] = 1
    torch.manual_seed(seeds[0])  # random noise
    with torch.no_grad():
        return to_uint8(generator(z, c, truncation_psi=psi, noise_mode=noise_mode))


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
