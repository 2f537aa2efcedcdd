"""The kernel distance between two sets of features: an unbiased squared maximum mean discrepancy, averaged over subsets."""

import numpy as np
import torch
from torch import Tensor

NUM_SUBSETS = 100
MAX_SUBSET = 1000
DEGREE = 3
SEED = 2020  # of the choice of subsets; the value that published programs share


def mean_discrepancy(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared MMD of rows [n, dim] and [m, dim] under (x.y / dim + 1)^3, float64.

    Binkowski et al., Demystifying MMD GANs, 2018, equation 4. It may be negative, and takes 2 rows of each.
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    within_x = (_kernel(x, x).sum() - _kernel_diagonal(x).sum()) / (n * (n - 1))
    within_y = (_kernel(y, y).sum() - _kernel_diagonal(y).sum()) / (m * (m - 1))
    return (within_x + within_y - 2 * _kernel(x, y).mean()).item()


def kernel_distance(
    fake: Tensor, real: Tensor, num_subsets: int = NUM_SUBSETS, max_subset: int = MAX_SUBSET, seed: int = SEED
) -> tuple[float, float]:
    """Return mean and standard deviation (ddof 0) over random subsets of the squared MMD of features, [rows, dim].

    A subset has as many rows as both sets allow, at most `max_subset`, drawn without replacement; generated first.
    """
    random, size = np.random.RandomState(seed), min(len(fake), len(real), max_subset)
    values = []
    for _ in range(num_subsets):
        chosen_fake = torch.from_numpy(random.choice(len(fake), size, replace=False))
        chosen_real = torch.from_numpy(random.choice(len(real), size, replace=False))
        values.append(mean_discrepancy(fake[chosen_fake], real[chosen_real]))
    return float(np.mean(values)), float(np.std(values))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** DEGREE


def _kernel_diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(dim=1) / x.shape[1] + 1) ** DEGREE
