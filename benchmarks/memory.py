"""What a call keeps in memory for its backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(network: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that a call stores for its backward pass, each storage counted once, the network's own left out."""
    own = {t.untyped_storage()._cdata for t in [*network.parameters(), *network.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
