"""Images as networks make them, and as files hold them."""

import torch
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Images of range -1..1 as uint8, as the published metrics quantise them: truncated, not rounded."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
