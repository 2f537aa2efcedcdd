"""Whether numbers are finite, in two kernels and without waiting for the device."""

import torch
from torch import Tensor


def is_all_finite(x: Tensor) -> Tensor:
    """Whether no element of a float tensor is NaN or infinite: a bool tensor without dimensions."""
    return torch.linalg.vector_norm(x, torch.inf) <= torch.finfo(x.dtype).max  # NaN is not
