"""Projects images: chooses starts, descends, writes what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib.images.animation import enlarged, write_animation
from dnnlib.images.captions import enlargement, sheet
from dnnlib.images.writer import write_image
from sampling.embeddings import Embedding, discriminator_embedding, lpips_embedding
from sampling.output import naming
from sampling.projection.descent import Likeness, closest_samples, descend, principal_space, psnr
from sampling.renderer import Renderer, device_of, random_w
from sampling.style_file import save_styles
from torch_utils.images import to_uint8
from training.checkpoint.snapshot import load_discriminator
from training.evaluation.finite import require_finite
from training.networks.generator import Generator

_SAMPLES = 5000  # random w that measure how W is spread
_FRAMES, _FPS = 60, 20  # of an animation


@dataclass(frozen=True)
class Search:
    starts: int = 3  # parallel descents: from the best candidates, and the last of several from the mean of w
    candidates: int = 1000  # random w that are compared with the target to choose the starts
    num_steps: int = 300  # of a descent
    is_plus: bool = False  # then search W+ for as many steps again
    labels: Tensor | None = None  # of the random w, in turn, [n, c_dim]; None = the classes
    seed: int = 0  # of the random w


@dataclass(frozen=True)
class Found:
    ws: Tensor  # [num_ws, w_dim]
    image: Tensor  # uint8 [channels, height, width]
    loss: float
    start: int  # index of the best descent
    path: Tensor  # its styles over the steps, [frames, num_ws, w_dim]


class Projector:
    """Finds the styles of images with one generator, one embedding and one search."""

    def __init__(self, generator: Generator, embed: Embedding, search: Search) -> None:
        self.generator, self.embed, self.search = generator, embed, search
        self.samples = random_w(generator, max(_SAMPLES, search.candidates), search.seed, search.labels)
        self.space = principal_space(self.samples)
        self.total_steps = search.num_steps * (2 if search.is_plus else 1)  # per target

    def likeness(self, target: Tensor) -> Likeness:
        return Likeness((target.to(self.samples.device).float() / 127.5 - 1).unsqueeze(0), self.embed)

    def starts(self, targets: Sequence[Tensor]) -> list[Tensor]:
        """The initial w for each target, [starts, 1, w_dim]."""
        likenesses = [self.likeness(target) for target in targets]
        candidates = self.samples[: self.search.candidates]
        closest = closest_samples(self.generator, candidates, likenesses, self.search.starts)
        if self.search.starts > 1:
            closest = [torch.cat([ws[:-1], self.space.mean.unsqueeze(0)]) for ws in closest]
        return [ws.unsqueeze(1) for ws in closest]

    def project(self, target: Tensor, starts: Tensor, on_step: Callable[[], object] = lambda: None) -> Found:
        """The best result for a target, uint8 [channels, height, width], of descents from starts in W, [starts, 1, w_dim]."""
        generator, likeness, steps = self.generator, self.likeness(target), []

        def record(ws: Tensor) -> None:
            on_step()
            steps.append(ws)

        ws, losses = descend(generator, self.space, starts, likeness, self.search.num_steps, record)
        if self.search.is_plus:
            ws, losses = descend(generator, self.space, ws, likeness, self.search.num_steps, record)
        best = int(losses.argmin())
        every = max(len(steps) // _FRAMES, 1)
        path = torch.stack([step[best] for step in steps[::every]] + [ws[best]])
        image = to_uint8(require_finite(generator.synthesis(ws[[best]], noise_mode="const")))[0].cpu()
        return Found(ws[best], image, float(losses[best]), best, path)


def choose_embedding(network: str, generator: Generator, lpips: str | None) -> Embedding:
    """LPIPS if its weights are given, otherwise the snapshot's discriminator. Raises ValueError."""
    if lpips is None:
        return discriminator_embedding(load_discriminator(network, device_of(generator)))
    return lpips_embedding(lpips, generator.img_height, generator.img_width, device_of(generator))


def project_files(
    projector: Projector, targets: Sequence[Tensor], names: Sequence[str], outdir: Path, is_animated: bool
) -> None:
    """Write projNN.png for each target, uint8 [channels, height, width], and projected_w.npz; print the PSNR."""
    found = []
    with tqdm(total=len(targets) * projector.total_steps, unit=" steps", disable=None) as bar:
        for index, (target, start) in enumerate(zip(targets, projector.starts(targets), strict=True)):
            result = projector.project(target, start, bar.update)
            found.append(result.ws)
            decibels = psnr(result.image, target)
            path = outdir / f"proj{index:02d}.png"
            left, right = (x.permute(1, 2, 0).numpy() for x in (target, result.image))
            write_image(path, sheet([[(left, "target"), (right, f"{decibels:.1f} dB")]]))
            if is_animated:
                frames = Renderer(projector.generator).images(result.path, range(len(result.path)))
                save_steps(path.with_suffix(".webp"), target, frames)
            bar.write(
                f"{names[index]}: PSNR {decibels:.1f} dB, loss {result.loss:.5f} (start {result.start}), in {path}"
            )
    styles_path = outdir / "projected_w.npz"
    save_styles(styles_path, torch.stack(found))
    print(f"Styles of all, for --w: {styles_path}")


def save_steps(path: Path, target: Tensor, frames: Tensor) -> None:
    """Write an animation with the target on the left: uint8 [frames, channels, height, width]."""
    factor = enlargement(*target.shape[1:])
    left = target.permute(1, 2, 0).numpy()
    pages = (np.concatenate([left, frame.permute(1, 2, 0).numpy()], axis=1) for frame in frames)
    with naming(path):
        write_animation(path, (enlarged(page, factor) for page in pages), _FPS)
