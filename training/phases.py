"""An optimizer step of an iteration: gradients of a loss over micro-batches, averaged over ranks, then Adam."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torch_utils.distributed import average_gradients
from training.latents import Latents
from training.precision import tf32_where
from training.state import FiniteCheck, NetworkState


@dataclass(frozen=True)
class MicroBatch:
    """The images and latents of one forward pass."""

    images: Tensor  # real, [micro_batch, channels, height, width], -1..1
    labels: Tensor  # [micro_batch, c_dim]
    latents: Latents


NO_SCALER = torch.amp.GradScaler(enabled=False)


@dataclass(frozen=True)
class Phase:
    """One optimizer step of an iteration, with gradient accumulation over micro-batches."""

    name: str
    trained: NetworkState  # its parameters require gradients in this phase
    frozen: nn.Module  # the other network, whose parameters do not
    loss: Callable[[MicroBatch], Iterable[Tensor]]  # terms that add up, back-propagated one by one
    finite: FiniteCheck  # records whether loss and gradients were finite
    stream: int  # number of the latents that this phase draws; it differs from those of other phases
    finish: Callable[[], None]  # called after the optimizer step
    interval: int = 1  # batches between two steps
    scaler: torch.amp.GradScaler = NO_SCALER  # of the loss, where gradients pass through float16
    allow_tf32: bool = False  # float32 products are rounded to TF32
    has_graphs: bool = False  # CUDA graphs reuse their memory: accumulate gradients in buffers that stay

    def is_due(self, batch_index: int) -> bool:
        return batch_index % self.interval == 0

    def step(self, batches: Sequence[MicroBatch]) -> None:
        """Accumulate the gradients of the micro-batches, average them over the ranks and update the weights."""
        self.frozen.requires_grad_(False)
        for parameter in self.trained.parameters:  # frozen layers stay without
            parameter.requires_grad_(True)
        self.clear_gradients()
        with tf32_where(self.allow_tf32):
            loss = self.accumulate(batches)
        if self.scaler.is_enabled():
            self.update_scaled(loss)
        else:
            self.finite.report(average_gradients(self.trained.parameters, loss)[1])
            self.trained.optimizer.step()
        self.finish()

    def accumulate(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Add the gradients of all micro-batches to the parameters; returns the loss, [], without its scale.

        A loss applied every `interval` batches is multiplied by it.
        """
        share = self.interval / len(batches)
        total = torch.zeros([], device=self.trained.parameters[0].device)
        for batch in batches:
            if self.has_graphs:
                torch.compiler.cudagraph_mark_step_begin()
            for term in self.loss(batch):
                loss = term if share == 1 else term * share
                self.scaler.scale(loss).backward()
                total += loss.detach()
        return total

    def update_scaled(self, loss: Tensor) -> None:
        """Update the weights by gradients of the scaled loss, unless some overflowed, and adapt the scale.

        Gradients are averaged as they are, so that all ranks see the overflow of any. A step skipped for an overflow is no
        fault, since the next one has a smaller scale. It is a fault where the loss itself is not finite, or where gradients
        overflow at a scale of 1.
        """
        scale = self.scaler.scale(torch.ones_like(loss))
        loss, is_finite = average_gradients(self.trained.parameters, loss, replace=False)
        self.finite.report(is_finite | (loss.isfinite() & (scale > 1)))
        self.scaler.step(self.trained.optimizer)
        self.scaler.update()

    def clear_gradients(self) -> None:
        self.trained.optimizer.zero_grad(set_to_none=not self.has_graphs)
        if self.has_graphs:
            for parameter in self.trained.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
