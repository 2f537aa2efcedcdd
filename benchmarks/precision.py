"""How far the gradients of each phase are from float64 in each precision, on a trained network and real images.

Prints a Markdown table of |g - g64| / |g64|, g being the gradient to all parameters of the network that the phase trains,
averaged over a few batches. Noise is constant and nothing is augmented, so that all precisions see the same images.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import words
from training.checkpoint.snapshot import load_networks, read_snapshot
from training.config import PerformanceConfig, RunConfig
from training.data.stream import ImageDataset, stream
from training.latents import LatentSource
from training.losses.logistic import LogisticLoss
from training.phases import MicroBatch
from training.precision import KNOWN, loss_scaler, set_arithmetic, tf32_where
from training.state import TrainState

PHASES = {"G_main": "g_main", "G_pl": "g_path_length", "D_main": "d_main", "D_r1": "d_r1"}
REGULARIZERS = ("G_pl", "D_r1")
PL_WEIGHT = 2.0  # where the snapshot was trained without; any would do, since errors are relative


@dataclass(frozen=True)
class Subject:
    """What is measured: networks, batches, and the running mean of path lengths."""

    config: RunConfig
    snapshot: Path
    dataset: ImageDataset
    batches: list[MicroBatch]
    device: torch.device

    def losses(self, precision: str, dtype: torch.dtype = torch.float32) -> LogisticLoss:
        """Return the losses of the networks in a precision; `dtype` is that of the weights."""
        config = replace(self.config, performance=PerformanceConfig(precision, compile="0"))
        state = TrainState(config, self.dataset.spec, self.device)
        load_networks(self.snapshot, state)
        for network in (state.G, state.D):
            network.to(dtype)
        losses = LogisticLoss(state)
        state.loss_buffers["pl_mean"] = state.loss_buffers["pl_mean"].to(dtype)
        losses.noise_mode = "const"
        return losses

    def gradients(self, losses: LogisticLoss, phase: str) -> Iterator[Tensor]:
        """Yield the gradient of each batch in a phase, float64 [parameters]; 0 where a parameter has none."""
        state, precision = losses.state, losses.precision
        is_regularizer = phase in REGULARIZERS
        network, other = (state.G, state.D) if phase.startswith("G") else (state.D, state.G)
        network.requires_grad_(True)
        other.requires_grad_(False)
        scaler = loss_scaler(KNOWN["fp32"] if is_regularizer else precision, self.device)
        dtype = next(network.parameters()).dtype
        for batch in self.batches:
            network.zero_grad()
            with tf32_where(is_regularizer and precision.regularizer_tf32):
                for term in getattr(losses, PHASES[phase])(cast(batch, dtype)):
                    scaler.scale(term).backward()
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
            yield torch.cat([grad.flatten() for grad in grads]).double() / scaler.get_scale()


def cast(batch: MicroBatch, dtype: torch.dtype) -> MicroBatch:
    """Return a batch for networks with weights of this dtype."""
    latents = replace(batch.latents, z=batch.latents.z.to(dtype), c=batch.latents.c.to(dtype))
    return MicroBatch(batch.images.to(dtype), batch.labels.to(dtype), latents)


def subject_of(snapshot: Path, data: Path, batch: int, count: int, device: torch.device) -> Subject:
    """Networks of a snapshot and batches of a data set; raises ValueError where they do not suit each other."""
    config = read_snapshot(snapshot)[0]
    dataset = ImageDataset(data, use_labels=config.data.cond)
    loss = replace(config.loss, pl_weight=config.loss.pl_weight or PL_WEIGHT, mixing_prob=0.0)
    schedule = replace(config.schedule, batch=batch, batch_gpu=None)
    config = replace(config, loss=loss, schedule=schedule, augment=replace(config.augment, mode="noaug"))
    config.check(dataset.spec)
    source = LatentSource(
        seed=0, z_dim=config.generator.z_dim, num_ws=2, labels=dataset.labels(),
        mixing_prob=0.0, batch_size=batch, micro_batch=batch,
    )  # fmt: skip
    reals = stream(dataset, seed=0, start_nimg=0, batch_size=batch, micro_batch=batch, device=device)
    batches = [
        MicroBatch(images.float() / 127.5 - 1, labels, source.draw(batch * index, 0, device)[0])
        for index, (images, labels) in enumerate(islice(reals, count))
    ]
    return Subject(config, snapshot, dataset, batches, device)


def errors(subject: Subject, modes: list[str]) -> dict[str, dict[str, float]]:
    """Return the mean relative error of each mode's gradients in each phase."""
    reference = subject.losses("fp32", torch.float64)
    for _ in subject.gradients(reference, "G_pl"):  # a mean path length as after long training
        pass
    pl_mean = reference.state.stats.collect()["Loss/path_length"].mean
    reference.state.loss_buffers["pl_mean"].fill_(pl_mean)
    expected = {phase: list(subject.gradients(reference, phase)) for phase in PHASES}
    found = {}
    for mode in modes:
        losses = subject.losses(mode)
        losses.state.loss_buffers["pl_mean"].fill_(pl_mean)
        with tf32_where(losses.precision.allow_tf32):
            found[mode] = {
                phase: sum(
                    float((ours - theirs).norm() / theirs.norm())
                    for ours, theirs in zip(subject.gradients(losses, phase), expected[phase], strict=True)
                )
                / len(subject.batches)
                for phase in PHASES
            }
    return found


@click.command(context_settings={"show_default": True})
@click.option("--snapshot", required=True, metavar="FILE", help="Trained networks.")
@click.option("--data", required=True, metavar="PATH", help="The data set that they were trained on.")
@click.option("--batch", default=16, help="Images of a batch.")
@click.option("--batches", default=4, help="Batches to average over.")
@click.option("--modes", default="fp32,bf16,fp16", metavar="NAMES", help=f"Of {', '.join(KNOWN)}.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
def main(**options: Any) -> None:
    """Compare the gradients of each phase in each precision with those of float64."""
    modes = words(options["modes"])
    unknown = [mode for mode in modes if mode not in KNOWN]
    if unknown:
        raise click.UsageError(f"--modes: {', '.join(unknown)} is not one of {', '.join(KNOWN)}")
    set_arithmetic(KNOWN["fp32"])
    try:
        subject = subject_of(
            Path(options["snapshot"]), Path(options["data"]), options["batch"], options["batches"],
            torch.device(options["device"]),
        )  # fmt: skip
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"| precision | {' | '.join(PHASES)} |\n|{'---|' * (1 + len(PHASES))}")
    for mode, row in errors(subject, modes).items():
        click.echo(f"| {mode} | {' | '.join(f'{row[phase]:.1e}' for phase in PHASES)} |")


if __name__ == "__main__":
    main()
