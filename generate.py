"""Generate images from a network snapshot."""

import math
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from dnnlib.command_line import SETTINGS, Group, one_line_errors
from dnnlib.console import protect_console
from dnnlib.paths import user_path
from sampling.commands import image_commands, network_commands, options
from training.config import COMPILE_CHOICES, PRECISIONS, PerformanceConfig

if TYPE_CHECKING:
    from training.networks.generator import Generator

COMPILE_FROM = 1000  # images; for fewer, compiling takes longer than it saves

COMMANDS = (
    image_commands.mix_command,
    image_commands.truncation_command,
    image_commands.classes_command,
    image_commands.interpolate_command,
    network_commands.attention_command,
    network_commands.directions_command,
    network_commands.project_command,
    network_commands.nearest_command,
    network_commands.explore_command,
)


@click.group(
    cls=Group,
    invoke_without_command=True,
    commands={command.name: command for command in COMMANDS if command.name},
    subcommand_metavar="",
    context_settings=SETTINGS,
)
@click.option("--network", metavar="FILE", help=f"{options.NETWORK_HELP}  [required]")  # not if a command is named
@options.ema
@click.option("--seeds", callback=options.number_list, metavar="LIST", help="Seeds, such as 0-35 or 1,5,100-105.")
@click.option(
    "--w", "--projected-w", "styles_file", metavar="FILE", help="Styles instead of seeds: array w of an .npz file."
)
@click.option(
    "--outdir",
    callback=options.output_folder,
    metavar="DIR",
    help="Where to save the images: seed0000.png, ...; w0000.png, ... with --w.",
)
@options.trunc
@options.labels
@options.noise_mode
@options.cutoff
@click.option("--grid", is_flag=False, flag_value="auto", metavar="[RxC]", help="Also save a grid, R rows of C images.")
@click.option("--save-w", is_flag=True, help="Also save the styles of the seeds: w.npz, for --w.")
@options.image_format
@options.batch
@click.option(
    "--precision",
    default="fp32",
    type=click.Choice(PRECISIONS),
    help="Precision of matrix products and convolutions; only fp32 reproduces published images.",
)
@click.option(
    "--compile",
    default="auto",
    type=click.Choice(COMPILE_CHOICES),
    help=f"Compile the network: auto = on a GPU, from {COMPILE_FROM} images.",
)
@click.option(
    "--export",
    callback=options.output_file,
    metavar="FILE",
    help="Convert the snapshot to a .pkl of this program or to .safetensors.",
)
@click.option(
    "--hub",
    metavar="USER/REPO",
    help="Also push --export to Hugging Face, with a model card; a new repository is private.",
)
@options.debug
@click.pass_context
def main(context: click.Context, **chosen: Any) -> None:
    """Generate images from a network snapshot; a seed always gives the same image.

    \b
    Examples:
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-35 --outdir=out --grid
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-39 --outdir=out --grid=4x10 --format=jpg
      python generate.py --network=hf://user/repo/network.safetensors --seeds=0-35 --outdir=out
      python generate.py --network=published.pkl --export=ours.safetensors
      python generate.py --network=network-snapshot-000040.pkl --seeds=0-9 --class=7 --trunc=0.7 --outdir=sevens
      python generate.py --network=network-snapshot-000040.pkl --w=out/w.npz --outdir=again
      python generate.py mix --network=network-snapshot-000040.pkl --rows=85,100 --cols=55,821 --outdir=out
    """
    if context.invoked_subcommand is None:
        if chosen["network"] is None:
            raise click.MissingParameter(
                ctx=context, param=next(item for item in main.params if item.name == "network")
            )
        with one_line_errors(chosen["debug"]):
            chosen["network"] = options.local_network(chosen["network"])
            export(chosen) if chosen["export"] else generate(chosen)
    elif any(context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE for name in chosen):
        name = context.invoked_subcommand
        line = shlex.join([context.command_path, name, *context.obj])
        raise click.UsageError(
            f"the command comes first, then all options: python {line}{lacking(context, name)}", context
        )


def lacking(context: click.Context, command: str) -> str:
    """Advice to leave out the options given before the command that it does not have; "" if it has all of them."""
    own = {option for parameter in main.commands[command].params for option in parameter.opts}
    before = [
        parameter.opts[0]
        for parameter in main.params
        if context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    ]
    extra = [option for option in before if option not in own]
    return f" (without {', '.join(extra)}, which {command} does not have)" if extra else ""


def generate(chosen: dict[str, Any]) -> None:
    """Save the images of --seeds or --w. Raises ValueError, OSError."""
    check_sources(chosen)
    from sampling.renderer import Renderer, load, write_images
    from sampling.style_file import load_styles, save_styles
    from training.networks.mapping import truncate

    generator = load(chosen["network"], chosen["ema"])
    outdir, extension = chosen["outdir"], chosen["extension"]
    if chosen["styles_file"]:
        ws, seeds = load_styles(chosen["styles_file"], generator)
        names = [f"w{index:04d}" for index in range(len(ws))]
    else:
        seeds = list(dict.fromkeys(chosen["seeds"]))  # no file is written twice
        names = [f"seed{seed:04d}" for seed in seeds]
    columns = grid_columns(chosen["grid"], generator, len(names), extension)
    compiling = "0" if chosen["compile"] == "auto" and len(names) < COMPILE_FROM else chosen["compile"]
    performance = PerformanceConfig(precision=chosen["precision"], compile=compiling)
    renderer = Renderer(generator, chosen["noise_mode"], chosen["batch"], performance)
    if chosen["styles_file"]:
        ws = truncate(ws, generator.mapping_network.w_avg, chosen["trunc"], chosen["trunc_cutoff"])
        batches = renderer.batches(ws, seeds)
    else:
        request = options.make_request(generator, chosen)
        batches = renderer.seed_batches(seeds, request)
    options.make_folder(generator, outdir)
    if chosen["save_w"]:
        save_styles(outdir / "w.npz", renderer.styles(seeds, request), seeds)
        print(f"Styles: {outdir / 'w.npz'}")
    write_images(batches, names, outdir, extension, columns)


def check_sources(chosen: dict[str, Any]) -> None:
    """Raise ValueError unless the options name either seeds or styles, and a folder."""
    if chosen["hub"]:
        raise ValueError(f"--hub={chosen['hub']} pushes an exported network; add --export=FILE")
    images = "" if chosen["seeds"] or chosen["styles_file"] else "--seeds=0-35"
    folder = "" if chosen["outdir"] else "--outdir=out"
    if images or folder:
        raise ValueError(f"name the images and a folder: add {f'{images} {folder}'.strip()} (or only --export=FILE)")
    if chosen["styles_file"]:
        given = {"--seeds": "seeds", "--class": "class_name", "--label": "label", "--save-w": "save_w"}
        if extra := [name for name, key in given.items() if chosen[key]]:
            raise ValueError(f"--w={chosen['styles_file']} has the styles already: leave out {', '.join(extra)}")


def grid_columns(text: str | None, generator: "Generator", count: int, extension: str) -> int | None:
    """Columns of --grid, "auto" or "RxC"; None = no grid. Raises ValueError if it is too small, or too large to save."""
    from sampling.tables import check_table

    if text is None:
        return None
    if text == "auto":
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
    else:
        rows, columns = options.parse_grid(text)
        if rows * columns < count:
            raise ValueError(
                f"--grid={text} has room for {rows * columns} images, but there are {count}; write "
                f"--grid={math.ceil(count / columns)}x{columns}, or --grid alone"
            )
    check_table(extension, generator, rows, columns)
    return columns


def export(chosen: dict[str, Any]) -> None:
    """Convert a snapshot to the file --export; raises ValueError if images are requested too."""
    from sampling.output import naming
    from training.checkpoint.snapshot import export_snapshot, read_snapshot

    target = chosen["export"]
    given = {"--seeds": "seeds", "--w": "styles_file", "--outdir": "outdir", "--grid": "grid", "--save-w": "save_w"}
    if chosen["ema"] is not None:
        raise ValueError(f"--export={target} saves all averages: leave out --ema, and give it when using the file")
    if extra := [name for name, key in given.items() if chosen[key]]:
        raise ValueError(f"--export={target} saves a network and no images: leave out {', '.join(extra)}")
    if chosen["hub"]:
        from sampling.hub import check_repo, push

        check_repo(chosen["hub"])
    if target.exists() and target.samefile(user_path(chosen["network"])):
        raise ValueError(f"--export={target} is the file of --network itself; name another file")
    trained_on = read_snapshot(chosen["network"])[0].data.path
    options.check_output(target, "--export", trained_on, "the training set")
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming(target):
        export_snapshot(chosen["network"], target)
    print(f"Saved: {target}")
    if chosen["hub"]:
        print(f"Pushed: {push(chosen['network'], target, chosen['hub'])}")


if __name__ == "__main__":
    protect_console()
    sys.exit(main())
