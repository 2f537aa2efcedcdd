"""The latents and labels of a step's generated images, the same on however many ranks the batch is spread."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_utils.rng import derive_seed, step_generator
from torch_utils.transfer import to_device_async
from training.data.labels import Labels
from training.data.stream import parts_of_rank
from training.state import TrainState

_OTHER_STREAM, _MIXING_STREAM = 4, 6  # first numbers of the seeds derived here


@dataclass(frozen=True)
class Latents:
    """What one micro-batch is generated from."""

    z: Tensor  # [micro_batch, z_dim]
    c: Tensor  # [micro_batch, c_dim]
    mix_z: Tensor | None  # the second latents, whose styles are used from `mix_from` on; None = no mixing
    mix_from: int  # index of the first mixed style
    seed: int  # of what else is drawn for these images, on whatever rank


@dataclass(frozen=True)
class LatentSource:
    """Draws latents from (seed, images seen), so that they do not depend on the number of ranks."""

    seed: int
    z_dim: int
    num_ws: int
    labels: Labels  # of the data set, from which those of generated images are drawn
    mixing_prob: float
    batch_size: int
    micro_batch: int
    rank: int = 0
    world_size: int = 1

    def draw(self, cur_nimg: int, stream: int, device: torch.device) -> list[Latents]:
        """This rank's micro-batches; `stream` tells the phases of a step apart."""
        generator = step_generator(self.seed, cur_nimg, stream)
        z = torch.randn(self.batch_size, self.z_dim, generator=generator)
        chosen = torch.randint(len(self.labels), [self.batch_size], generator=generator)
        c = torch.from_numpy(self.labels[chosen.numpy()])
        batches = []
        for part in parts_of_rank(self.batch_size, self.micro_batch, self.rank, self.world_size):
            mix_z, mix_from = self.mixing(cur_nimg, stream, part.start // self.micro_batch)
            seed = derive_seed(self.seed, _OTHER_STREAM, cur_nimg, stream, part.start)
            mix_z = None if mix_z is None else to_device_async(mix_z, device)
            batches.append(
                Latents(to_device_async(z[part], device), to_device_async(c[part], device), mix_z, mix_from, seed)
            )
        return batches

    def mixing(self, cur_nimg: int, stream: int, index: int) -> tuple[Tensor | None, int]:
        """The second latents, [micro_batch, z_dim], or None, and the first style taken from them, of one micro-batch.

        They follow from its index in the whole batch, whichever rank computes it.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, _MIXING_STREAM, cur_nimg, stream, index))
        is_mixed = torch.rand([], generator=generator).item() < self.mixing_prob
        mix_from = int(torch.randint(1, self.num_ws, [], generator=generator))
        return torch.randn(self.micro_batch, self.z_dim, generator=generator) if is_mixed else None, mix_from


def latent_source(
    state: TrainState, labels: Labels, batch_size: int, micro_batch: int, rank: int = 0, world_size: int = 1
) -> LatentSource:
    """The latents of a state's generator, and labels drawn from these."""
    G, mixing_prob = state.G, state.config.loss.mixing_prob
    return LatentSource(state.seed, G.z_dim, G.num_ws, labels, mixing_prob, batch_size, micro_batch, rank, world_size)
