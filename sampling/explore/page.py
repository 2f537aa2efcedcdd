"""The widgets of the page, of the library gradio; all visitors share the networks, none of them the settings of another."""

import functools
import itertools
import os
import random
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from dnnlib.command_line import memory_shortage
from dnnlib.images.animation import enlarged
from dnnlib.images.writer import write_image
from dnnlib.text import first_line, parse_int_list
from sampling.commands.options import MAX_SEED
from sampling.explore.explorer import LOCK, MAX_WALK_FRAMES, Explorer
from sampling.explore.view import MAX_AMOUNT, MAX_PSI, MIN_PSI, NUM_DIRECTIONS, View
from training.networks.attention import NOISE_MODES

FPS = 24
MAX_STEPS = 2000  # of a projection
MAX_TEXT = 200  # characters of a list of seeds
MAX_QUEUE, MAX_UPLOAD = 50, "20mb"
ERRORS = (ValueError, OSError, RuntimeError, MemoryError)  # of what a visitor asks for
ERROR_SEC = 8  # an error covers part of the page
SLOTS = 64  # files of drawn images, in turn
NETWORKS = 2  # kept loaded, beside the first
# the first widgets that a view is read from
SETTINGS = ("snapshot", "seed", "label", "trunc", "noise", "mix_on", "mix", "mix_from")
FOUND = "Found styles in place of the seed's. They are not part of the address: save them. Tab Find leads back."
_SHOW_ADDRESS = "query => { history.replaceState(null, '', query ? '?' + query : location.pathname); }"
_CSS = ".pixels img { image-rendering: pixelated; object-fit: contain; } footer { display: none !important; }"

Widgets = dict[str, Any]  # by the name of their setting


def in_page(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose errors appear in the page in one line."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ERRORS as error:
            message = memory_shortage(error) or first_line(error)
            raise gr.Error(message, duration=ERROR_SEC, print_exception=False) from error

    return guarded


def snapshots_beside(network: Path) -> dict[str, Path]:
    """The snapshots of the same run by name, oldest first and the best ones last; or the network alone."""
    numbered, best = (sorted(network.parent.glob(f"network-snapshot-{kind}*.pkl")) for kind in ("[0-9]", "best-"))
    beside = {path.name: path for path in (*numbered, *best)}
    return beside if network.name in beside else {network.name: network}


class Page:
    """Widgets and what they do. Every handler gets the settings of its visitor; nothing of a visitor is kept here."""

    def __init__(self, network: Path, folder: Path, address: str = "", ema: float | None = None) -> None:
        """A page about a network file, downloaded from `address` unless that is empty; `folder` holds what it writes."""
        self.network, self.folder, self.address, self.ema = network, folder, address, ema
        self.snapshots = snapshots_beside(network)
        self.first = Explorer(str(network), ema)
        self.drawn = itertools.count()
        self.open = functools.lru_cache(maxsize=NETWORKS)(self.load)

    def load(self, name: str) -> Explorer:
        """A snapshot of the same run. Raises ValueError."""
        if name not in self.snapshots:
            raise ValueError(f"snapshot={name!r}: there is no such snapshot beside {self.network.name}")
        explorer = Explorer(str(self.snapshots[name]), self.ema)
        ours, first = explorer.generator, self.first.generator
        if (ours.num_ws, ours.c_dim, ours.w_dim) != (first.num_ws, first.c_dim, first.w_dim):
            raise ValueError(f"{name} has other styles or classes than {self.network.name}: explore it alone")
        return explorer

    def explorer(self, snapshot: str) -> Explorer:
        """The network of a snapshot, "" = the first, loaded once."""
        if snapshot in ("", self.network.name):
            return self.first
        with LOCK:
            return self.open(snapshot)

    def view(self, values: tuple[Any, ...]) -> tuple[View, Explorer]:
        """The view that the widgets of `SETTINGS` and the sliders show, and its network."""
        chosen = dict(zip(SETTINGS, values, strict=False))
        amounts = dict(zip(self.slider_places(), values[len(SETTINGS) :], strict=True))
        view = View(
            snapshot="" if chosen["snapshot"] == self.network.name else chosen["snapshot"],
            seed=whole("seed", chosen["seed"]),
            label=str(chosen["label"] or "").strip(),
            trunc=chosen["trunc"],
            noise=chosen["noise"],
            mix=whole("second seed", chosen["mix"]) if chosen["mix_on"] else None,
            mix_from=chosen["mix_from"] if chosen["mix_on"] else 0,
            moves={place: amount for place, amount in amounts.items() if amount},
        )
        return view, self.explorer(view.snapshot)

    def slider_places(self) -> list[tuple[str, int]]:
        """(group, direction) of each slider."""
        count = min(NUM_DIRECTIONS, self.first.generator.w_dim)
        return [(group, index) for group in self.first.groups for index in range(count)]

    def shown(self, image: np.ndarray) -> str:
        """A file with an image, [height, width, 1 or 3], which gradio copies before it is written again.

        Of an array gradio would write the file itself, once more for the same image while a browser reads it.
        """
        path = self.folder / f"drawn{next(self.drawn) % SLOTS}" / "image.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, image)
        return str(path)

    # What happens

    def draw(self, found: np.ndarray | None, *values: Any) -> tuple[Any, ...]:
        """The image, a note on it, the command that makes it, the query of the address; what was of another image goes."""
        view, explorer = self.view(values)
        image = enlarged(explorer.image(view, found), explorer.scale)
        network = self.address if self.address and explorer is self.first else explorer.network
        command = view.command(network, explorer.is_classes, found is not None, explorer.num_ws)
        command += "" if self.ema is None else f" --ema={self.ema:g}"
        nothing_saved = gr.update(value=None, visible=False)
        return self.shown(image), "" if found is None else FOUND, command, view.query(), nothing_saved, None

    def strip(self, *values: Any) -> tuple[Any, ...]:
        """The images of neighbouring seeds, these, and a line that names them; nothing if there is no image."""
        try:
            view, explorer = self.view(values)
            image = self.shown(explorer.strip(view))
        except ERRORS:
            return gr.skip(), gr.skip(), gr.skip()  # `draw` says why
        seeds = explorer.neighbours(view)
        named = ", ".join(f"**{seed}**" if seed == view.seed else str(seed) for seed in seeds)
        return image, seeds, f"Seeds {named}: click an image."

    def pick(self, seeds: list[int], event: gr.SelectData) -> int:
        """The seed of the image in the strip that was clicked."""
        column = event.index[0] // (self.first.generator.img_width * self.first.strip_scale)
        return seeds[min(column, len(seeds) - 1)]

    def attend(self, found: np.ndarray | None, event: gr.SelectData, *values: Any) -> str:
        """The attention of the point of the image that was clicked."""
        view, explorer = self.view(values)
        x, y = (place // explorer.scale for place in event.index)
        y, x = min(y, explorer.generator.img_height - 1), min(x, explorer.generator.img_width - 1)
        return self.shown(explorer.attention(view, found, y, x))

    def walk(self, seeds: str, num_frames: int, *values: Any, progress: Any = gr.Progress()) -> tuple[str, str]:  # noqa: B008
        """An animation from seed to seed, to look at and as a file."""
        if len(seeds) > MAX_TEXT:
            raise ValueError("too many seeds")
        path, (view, explorer) = Path(tempfile.mkdtemp(dir=self.folder)) / "walk.webp", self.view(values)
        explorer.walk(view, parse_int_list(seeds), num_frames, FPS, path, lambda share: progress(share, "Frames"))
        return str(path), str(path)

    def find(
        self,
        target: str | None,
        num_steps: int,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        """The styles of a dropped image, how close their image comes, and no mixing and no moves."""
        if not target:
            raise ValueError("drop an image first")
        view, explorer = self.view(values)
        progress(0, "Choosing starts")
        try:
            styles, decibels = explorer.project(view, target, num_steps, lambda share: progress(share, "Steps"))
        except ValueError as error:
            raise ValueError(str(error).replace(f"--target={target}", Path(target).name)) from error
        outcome = f"Found: PSNR {decibels:.1f} dB (above 30: nearly equal; below 20: unlike the training images)."
        return [styles, outcome, False, *[0.0] * len(self.slider_places())]

    def save(self, found: np.ndarray | None, *values: Any) -> Any:
        """The image and its styles as files."""
        view, explorer = self.view(values)
        paths = explorer.save(view, found, Path(tempfile.mkdtemp(dir=self.folder)))
        return gr.update(value=[str(path) for path in paths], visible=True)

    def restore(self, request: gr.Request) -> list[Any]:
        """The values of all widgets that the query of the address asks for; the defaults where it asks in vain."""
        try:
            view = View.from_query(dict(request.query_params), self.first.num_ws)
            label = self.explorer(view.snapshot).class_value(view.label)
        except (ValueError, OSError) as error:
            gr.Warning(f"The address of the page: {first_line(error)}", duration=ERROR_SEC)
            view, label = View(), ""
        mix_from = view.mix_from if view.mix is not None else self.first.num_ws // 2
        settings = [view.snapshot or self.network.name, view.seed, label, view.trunc, view.noise]
        settings += [view.mix is not None, view.mix or 0, mix_from]
        return settings + [view.moves.get(place, 0.0) for place in self.slider_places()]

    # The widgets

    def build(self) -> gr.Blocks:
        with gr.Blocks(
            title="Styleformer", analytics_enabled=False, delete_cache=(600, 1800), fill_width=True
        ) as blocks:
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    widgets = self.build_image()
                with gr.Column(scale=3, min_width=320), gr.Tabs():
                    widgets |= self.build_generate() | self.build_mix() | self.build_move()
                    self.build_tools()
            self.connect(blocks, widgets)
        return blocks

    def build_image(self) -> Widgets:
        """The image, what belongs to it, and the neighbouring seeds; the snapshot."""
        self.image = picture("image", label="Image", elem_classes="pixels", buttons=["fullscreen"])
        self.note = gr.Markdown(elem_id="note")
        self.strip_image = picture(
            "strip", label="Neighbouring seeds", show_label=False, elem_classes="pixels", buttons=[]
        )
        self.strip_seeds = gr.Markdown()
        names = list(self.snapshots)
        snapshot = gr.Dropdown(names, value=self.network.name, label="Snapshot", interactive=len(names) > 1)
        self.command = gr.Textbox(label="The command for this image", lines=2, buttons=["copy"], elem_id="command")
        self.save_button = gr.Button("Save image and styles")
        self.files = gr.File(
            label="Saved", file_count="multiple", interactive=False, visible=False, height=140, elem_id="files"
        )
        return {"snapshot": snapshot}

    def build_generate(self) -> Widgets:
        """Seed, label, truncation, noise."""
        generator = self.first.generator
        with gr.Tab("Generate"):
            seed = gr.Number(0, label="Seed", elem_id="seed")
            with gr.Row():
                previous, following, dice = (gr.Button(text, min_width=60) for text in ("◀", "▶", "Random"))
            if self.first.is_classes:
                choices = [("by seed", ""), *((name, value) for value, name in self.first.classes().items())]
                label: Any = gr.Dropdown(choices, value="", label="Class")
            else:
                label = gr.Textbox(label="Label vector", visible=bool(generator.c_dim), placeholder="1,0,0")
            trunc = gr.Slider(
                MIN_PSI, MAX_PSI, 1.0, step=0.05, label="Truncation psi: 0 = the mean image, 1 = full variety"
            )
            noise = gr.Radio(
                NOISE_MODES, value="const", label="Noise added in the layers", info="const: the same for all seeds"
            )
        previous.click(lambda value: max(int(value or 0) - 1, 0), seed, seed, api_visibility="private")
        following.click(lambda value: min(int(value or 0) + 1, MAX_SEED), seed, seed, api_visibility="private")
        dice.click(lambda: random.randrange(MAX_SEED + 1), None, seed, api_visibility="private")
        return {"seed": seed, "label": label, "trunc": trunc, "noise": noise}

    def build_mix(self) -> Widgets:
        """The second seed and the first style that comes from it."""
        count = self.first.num_ws
        with gr.Tab("Mix"):
            gr.Markdown("The last styles come from a second seed: few of them change colours, many the shape too.")
            mix_on = gr.Checkbox(False, label="Mix with a second seed")
            mix = gr.Number(1, label="Second seed")
            mix_from = gr.Slider(0, count - 1, count // 2, step=1, label="First style from the second seed, 0 = all")
        return {"mix_on": mix_on, "mix": mix, "mix_from": mix_from}

    def build_move(self) -> Widgets:
        """A slider per direction and group of styles."""
        sliders: Widgets = {}
        with gr.Tab("Move"):
            gr.Markdown("Moves w along the directions that change images most, by standard deviations of w.")
            reset = gr.Button("Reset")
            for group, styles in self.first.groups.items():
                which = f"style {styles[0]}" if len(styles) == 1 else f"styles {styles[0]}-{styles[-1]}"
                with gr.Accordion(f"{group}: {which}", open=group == "all"):
                    for index in [place[1] for place in self.slider_places() if place[0] == group]:
                        label = f"Direction {index}, {group}"
                        sliders[label] = gr.Slider(-MAX_AMOUNT, MAX_AMOUNT, 0, step=0.1, label=label)
        reset.click(lambda: [0.0] * len(sliders), None, list(sliders.values()), api_visibility="private")
        return sliders

    def build_tools(self) -> None:
        """The tabs that compute on request."""
        with gr.Tab("Attend", visible=self.first.has_attention):
            gr.Markdown(
                "Click a point of the large image. Per layer: brighter places get more of its attention; above each, "
                "number, tokens and peak (2x = twice the mean)."
            )
            self.attention = picture("attention", label="Attention per layer", show_label=False)
        with gr.Tab("Walk"):
            self.walk_seeds = gr.Textbox("0-5", label="Seeds, such as 0-5 or 1,8,3")
            self.walk_frames = gr.Slider(4, MAX_WALK_FRAMES, 24, step=1, label="Frames from one seed to the next")
            self.walk_button = gr.Button("Play")
            self.animation = picture("walk", label="Animation", type="filepath", image_mode=None)
            self.walk_file = gr.File(label="WebP file", interactive=False, height=90, elem_id="walkfile")
        with gr.Tab("Find"):
            gr.Markdown("Drop an image: the styles are found whose own image comes closest to its centre crop.")
            self.target = gr.Image(label="Target", type="filepath", sources=["upload", "clipboard"], elem_id="target")
            # Only our own reader decodes it:
            self.target.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
            self.steps = gr.Slider(20, MAX_STEPS, 150, step=10, label="Steps")
            with gr.Row():
                self.find_button, self.forget_button = gr.Button("Find"), gr.Button("Back to the seed")
            self.outcome = gr.Markdown(elem_id="outcome", min_height=90)  # of the progress bar

    def connect(self, blocks: gr.Blocks, widgets: Widgets) -> None:
        """Handlers. Of moves that come while an image is drawn, only the last is drawn."""
        found, query, loaded = gr.State(None), gr.Textbox(visible="hidden"), gr.Number(0, visible="hidden")
        settings, seeds = list(widgets.values()), gr.State([0])
        common: dict[str, Any] = {"api_visibility": "private"}
        latest = common | {"trigger_mode": "always_last", "show_progress": "hidden"}
        source = [found, *settings]
        drawn = [self.image, self.note, self.command, query, self.files, self.attention]
        changes = [widget.change for widget in [*settings, loaded]]
        gr.on([*changes, found.change], in_page(self.draw), source, drawn, concurrency_limit=4, **latest)
        strip_drawn = [self.strip_image, seeds, self.strip_seeds]
        seen = [widgets[name].change for name in ("snapshot", "seed", "label", "trunc", "noise")]
        gr.on([*seen, loaded.change], self.strip, settings, strip_drawn, concurrency_limit=4, **latest)
        query.change(None, query, None, js=_SHOW_ADDRESS, **common)
        restored = blocks.load(in_page(self.restore), None, settings, **common)
        restored.then(lambda: 1, None, loaded, **common)  # draws once, in the same queue as all changes
        self.strip_image.select(in_page(self.pick), seeds, widgets["seed"], **common)
        if self.first.has_attention:
            self.image.select(in_page(self.attend), source, self.attention, **common)
        self.save_button.click(in_page(self.save), source, self.files, **common)
        walk_source = [self.walk_seeds, self.walk_frames, *settings]
        walk_drawn = [self.animation, self.walk_file]
        self.walk_button.click(in_page(self.walk), walk_source, walk_drawn, concurrency_limit=1, **common)
        sliders = settings[len(SETTINGS) :]
        find_source = [self.target, self.steps, *settings]
        find_drawn = [found, self.outcome, widgets["mix_on"], *sliders]
        finding: dict[str, Any] = {"concurrency_limit": 1, "show_progress_on": self.outcome} | common
        self.find_button.click(in_page(self.find), find_source, find_drawn, **finding)
        self.forget_button.click(lambda: (None, ""), None, [found, self.outcome], **common)


def whole(name: str, value: float | None) -> int:
    """A whole number of a widget. Raises ValueError for anything else."""
    if value is None or value != int(value):
        raise ValueError(f"{name}: write a whole number, 0..{MAX_SEED}")
    return int(value)


def picture(name: str, **settings: Any) -> gr.Image:
    """An image to look at, named in the page."""
    settings = {"buttons": ["download", "fullscreen"]} | settings
    return gr.Image(format="png", interactive=False, elem_id=name, **settings)


def serve(network: Path, ema: float | None, host: str, port: int, is_shared: bool, address: str = "") -> None:
    """Serve the page until the process is told to stop; then the process ends. Raises ValueError, OSError.

    `address` is where the network was downloaded from, "" = nowhere.
    """
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="styleformer-explore-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # its copies of images go with it
        proxies = [os.environ.get("no_proxy", ""), "localhost", "127.0.0.1"]
        os.environ["no_proxy"] = ",".join(filter(None, proxies))  # gradio asks its own server whether it is up
        # fonts of the system: the page loads nothing from elsewhere
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        blocks = (
            Page(network, Path(folder), address, ema).build().queue(max_size=MAX_QUEUE, default_concurrency_limit=4)
        )
        _, url, public = blocks.launch(
            server_name=host, server_port=port, share=is_shared, prevent_thread_lock=True, quiet=True, show_error=True,
            theme=theme, css=_CSS, ssr_mode=False, footer_links=[], max_file_size=MAX_UPLOAD, enable_monitoring=False,
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # of nohup
                signal.signal(number, lambda number, frame: stop.set())
        local = f"http://{socket.gethostname()}:{port}/" if host in ("0.0.0.0", "::") else url
        print(f"Explore {address or network}: {public or local} (Ctrl-C to stop)", flush=True)
        stop.wait()
        blocks.close(verbose=False)
    os._exit(0)  # threads that still draw would abort the interpreter at its end
