"""Images of a view: one network, used by all visitors of the page at once."""

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib.images.animation import enlarged, write_animation
from dnnlib.images.writer import grid_pixels, write_image
from sampling.attention_maps import attention_maps, encoder_layers, overview
from sampling.commands.options import MAX_SEED
from sampling.directions import Directions, choose_directions
from sampling.explore.view import NUM_DIRECTIONS, View, style_groups
from sampling.interpolation import Way, frames, timeline
from sampling.labels import choose_labels, find_class
from sampling.projection.descent import psnr
from sampling.projection.projector import Projector, Search, choose_embedding
from sampling.projection.target import read_target
from sampling.renderer import Renderer, Request, load
from sampling.style_file import save_styles
from torch_utils.images import to_uint8

DISPLAY_PX = 512  # images are enlarged to about this
NEIGHBOURS = 5  # seeds in the strip
MAX_WALK_SEEDS, MAX_WALK_FRAMES = 50, 60
MAX_WALK_PX = 2**27  # of all its frames
_CANDIDATES = 500  # of a projection
LOCK = threading.RLock()  # one thread at a time loads or draws: noise follows the global seed, hooks record attention


class Explorer:
    """A loaded network: the average of its weights with the half-life `ema`, in kimg; None = the first."""

    def __init__(self, network: str, ema: float | None = None) -> None:
        self.network = network
        with LOCK:
            self.generator = load(network, ema)
        self.num_ws = self.generator.num_ws
        self.groups = style_groups(self.num_ws)
        self.scale = max(DISPLAY_PX // max(self.generator.img_height, self.generator.img_width), 1)
        self.strip_scale = max(self.scale // 4, 1)
        self._directions: dict[str, Directions] = {}

    @property
    def is_classes(self) -> bool:
        return bool(self.generator.c_dim) and not self.generator.labels_are_vectors

    def classes(self) -> dict[str, str]:
        """The values of --class and the names of all classes."""
        names = self.generator.class_names or tuple(map(str, range(self.generator.c_dim)))
        ambiguous = {name for index, name in enumerate(names) if name.isdecimal() and name != str(index)}
        return {f"number:{i}" if str(i) in ambiguous else str(i): name for i, name in enumerate(names)}

    def class_value(self, label: str) -> str:
        """A label of the address as `classes` writes it. Raises ValueError for a class that does not exist."""
        self.request(View(label=label))
        if not (label and self.is_classes):
            return label
        return list(self.classes())[find_class(self.generator, label)]

    @cached_property
    def has_attention(self) -> bool:
        try:
            return bool(encoder_layers(self.generator))
        except ValueError:
            return False

    def request(self, view: View) -> Request:
        """Labels and truncation. Raises ValueError for a class that does not exist."""
        if not view.label:
            return Request(self.default_labels, view.trunc)
        of_class = self.is_classes
        labels = choose_labels(self.generator, view.label if of_class else None, None if of_class else view.label)
        return Request(labels, view.trunc)

    @cached_property
    def default_labels(self) -> Tensor | None:
        """The labels of seeds where none is chosen; those of vectors come from the training set."""
        return choose_labels(self.generator, None, None)

    def renderer(self, view: View) -> Renderer:
        """As `generate.py` draws a few images."""
        return Renderer(self.generator, view.noise)

    def directions(self, group: str) -> Directions:
        """The directions that a group of styles is moved along."""
        if group not in self._directions:
            count = min(NUM_DIRECTIONS, self.generator.w_dim)
            layers, labels = self.groups[group], self.default_labels
            self._directions[group] = choose_directions(self.generator, None, layers, count, labels)
        return self._directions[group]

    def styles(self, view: View, found: np.ndarray | None = None) -> Tensor:
        """The styles of a view, [1, num_ws, w_dim]; `found` ones, [num_ws, w_dim], replace those of the seed."""
        renderer, request = self.renderer(view), self.request(view)
        seeds = [view.seed] if view.mix is None else [view.seed, view.mix]
        ws = renderer.styles(seeds, request).clone()
        if found is not None:
            ws[0] = torch.from_numpy(found)
        ws[0, view.mix_from :] = ws[-1, view.mix_from :]  # of the second seed, if there is one
        ws = ws[:1]
        for (group, index), amount in view.moves.items():
            if amount and group in self.groups:
                ws = self.directions(group).move(ws, index, amount)
        return ws

    def image(self, view: View, found: np.ndarray | None = None) -> np.ndarray:
        """The image of a view, uint8 [height, width, 1 or 3]."""
        with LOCK:
            images = self.renderer(view).images(self.styles(view, found), [view.seed])
        return images[0].permute(1, 2, 0).numpy()

    def neighbours(self, view: View) -> list[int]:
        """The seeds of the strip, with that of the view in the middle where it can be."""
        first = min(max(view.seed - NEIGHBOURS // 2, 0), MAX_SEED - NEIGHBOURS + 1)
        return list(range(first, first + NEIGHBOURS))

    def strip(self, view: View) -> np.ndarray:
        """The images of the neighbouring seeds side by side, uint8 [height, width, 1 or 3]."""
        with LOCK:
            renderer = self.renderer(view)
            images = torch.cat(list(renderer.seed_batches(self.neighbours(view), self.request(view))))
        return enlarged(grid_pixels(images.numpy(), NEIGHBOURS), self.strip_scale)

    def attention(self, view: View, found: np.ndarray | None, y: int, x: int) -> np.ndarray:
        """Where each layer looks from a point of the image, px: the overview of `generate.py attention`."""
        layers = range(len(encoder_layers(self.generator)))
        with LOCK:
            maps, image = attention_maps(self.generator, self.styles(view, found), [(y, x)], layers)
        return overview(to_uint8(image)[0].permute(1, 2, 0).cpu().numpy(), [(y, x)], maps)

    def walk(
        self,
        view: View,
        seeds: Sequence[int],
        num_frames: int,
        fps: int,
        path: Path,
        on_frame: Callable[[float], object],
    ) -> None:
        """Write the animation of `generate.py interpolate --loop`; `on_frame` gets the share that is done."""
        if not 2 <= len(seeds) <= MAX_WALK_SEEDS:
            raise ValueError(f"a walk needs 2 to {MAX_WALK_SEEDS} seeds, such as 0-5 or 1,8,3; these are {len(seeds)}")
        if len(seeds) * num_frames * (self.generator.img_height * self.generator.img_width) > MAX_WALK_PX:
            raise ValueError("the walk is too long for images of this size: choose fewer seeds or frames")
        with LOCK:
            way = Way(self.generator, seeds, self.request(view), "z")
        moments = timeline(len(seeds), num_frames, is_loop=True)
        pages: list[np.ndarray] = []
        for index, moment in enumerate(moments):  # frame by frame: others draw in between
            with LOCK:
                pages += frames(self.renderer(view), [way], [moment], seeds[0], columns=1)
            on_frame((index + 1) / len(moments))
        write_animation(path, (enlarged(page, max(self.scale // 2, 1)) for page in pages), fps)

    def project(
        self, view: View, target: str, num_steps: int, on_step: Callable[[float], object]
    ) -> tuple[np.ndarray, float]:
        """The styles of an image file, [num_ws, w_dim], and the PSNR of their image, dB. Raises ValueError."""
        wanted, _ = read_target(target, self.generator)
        labels = self.request(view).labels
        search = Search(num_steps=num_steps, candidates=_CANDIDATES, labels=labels)
        with LOCK:
            generator = copy.deepcopy(self.generator)  # others draw with the first meanwhile, and record its attention
            projector = Projector(generator, choose_embedding(self.network, generator, None), search)
        steps = itertools.count(1)
        starts = projector.starts([wanted])[0]
        result = projector.project(wanted, starts, lambda: on_step(next(steps) / projector.total_steps))
        return result.ws.cpu().numpy(), psnr(result.image, wanted)

    def save(self, view: View, found: np.ndarray | None, folder: Path) -> list[Path]:
        """Write the image of a view as PNG and its styles as w.npz, which `generate.py --w` reads."""
        name = view.image_name(found is not None)
        image, styles = folder / name, folder / "w.npz"
        write_image(image, self.image(view, found))
        save_styles(styles, self.styles(view, found), [view.seed])
        return [image, styles]
