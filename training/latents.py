"""The latents and labels of a step's generated pictures: drawn for the whole batch alike on every rank, then shared out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.rng import derive_seed, step_generator


@dataclass(frozen=True)
class Latents:
    """What one micro-batch is generated from."""

    z: Tensor  # [micro_batch, z_dim]
    c: Tensor  # [micro_batch, c_dim]
    mix_z: Tensor | None  # the second latents, whose styles are used from `mix_from` on; None = no mixing
    mix_from: int  # index of the first mixed style
    seed: int  # of what else is drawn for these pictures, on whatever rank


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on the device, without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


@dataclass(frozen=True)
class LatentSource:
    """Draws latents from (seed, pictures seen), so that they do not depend on the number of ranks."""

    seed: int
    z_dim: int
    num_ws: int
    labels: Tensor  # labels of the data set, [pictures, c_dim], from which those of generated pictures are drawn
    mixing_prob: float
    batch_size: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1

    def draw(self, cur_nimg: int, stream: int, device: torch.device) -> list[Latents]:
        """This rank's micro-batches; `stream` tells the phases of a step apart."""
        generator = step_generator(self.seed, cur_nimg, stream)
        z = torch.randn(self.batch_size, self.z_dim, generator=generator)
        c = self.labels[torch.randint(len(self.labels), [self.batch_size], generator=generator)]
        mixes = torch.rand([], generator=generator).item() < self.mixing_prob
        mix_z = torch.randn(self.batch_size, self.z_dim, generator=generator) if mixes else None
        mix_from = int(torch.randint(1, self.num_ws, [], generator=generator))
        return [
            Latents(
                send(z[part], device),
                send(c[part], device),
                None if mix_z is None else send(mix_z[part], device),
                mix_from,
                derive_seed(self.seed, 4, cur_nimg, stream, part.start),
            )
            for part in self.parts()
        ]

    def parts(self) -> list[slice]:
        """Where this rank's micro-batches lie in the batch: micro-batch k belongs to rank k modulo the world size."""
        stride = self.micro_batch * self.world_size
        starts = range(self.rank * self.micro_batch, self.batch_size, stride)
        return [slice(start, start + self.micro_batch) for start in starts]
