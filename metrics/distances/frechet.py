"""The Frechet distance between two sets of features, from moments summed in float64 while the images stream past."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class FeatureMoments:
    """Count, sum and sum of outer products of feature rows in float64: all that mean and covariance need."""

    count: int
    total: Tensor  # float64 [dim]
    outer: Tensor  # float64 [dim, dim]

    @classmethod
    def of_none(cls, dim: int, device: torch.device | str = "cpu") -> "FeatureMoments":
        """Return the moments of no rows; `device` is where they will be summed."""
        total, outer = (torch.zeros(size, dtype=torch.float64, device=device) for size in ([dim], [dim, dim]))
        return cls(0, total, outer)

    def append(self, features: Tensor) -> None:  # [rows, dim]
        rows = features.detach().to(self.total)
        self.count += len(rows)
        self.total += rows.sum(dim=0)
        self.outer.addmm_(rows.T, rows)

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        return FeatureMoments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> Tensor:
        """The mean row, float64 [dim]."""
        return self.total / self.count

    def covariance(self, ddof: int) -> Tensor:
        """Return the covariance, float64 [dim, dim]; `ddof`, less than the rows: 1 = unbiased estimate, 0 = plain average."""
        return (self.outer - self.count * torch.outer(self.mean, self.mean)) / (self.count - ddof)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Return |mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), the squared distance of two Gaussians.

    Dowson and Landau, 1982. Means are [dim], covariances [dim, dim]. Computed on the CPU: most GPUs are slow at float64,
    and every machine gives the same distance.

    The trace of the root comes from the symmetric matrix A^T cov_b A with cov_a = A A^T, which has the eigenvalues of
    cov_a cov_b: never complex. Directions in which cov_a is rounding noise are left out, since the roots of noise would
    add up where there are fewer images than features.
    """
    mean_a, cov_a, mean_b, cov_b = (x.cpu().double() for x in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    has_spread = values > values.max() * len(values) * torch.finfo(torch.float64).eps
    root = vectors[:, has_spread] * values[has_spread].sqrt()
    product = root.T @ cov_b @ root
    trace_of_root = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(distance.item(), 0.0)  # rounding may leave a little less than nothing


def moments_distance(a: FeatureMoments, b: FeatureMoments, ddof: int) -> float:
    """Return the Frechet distance of two sets of features; warns where a set has no more rows than features."""
    for moments in (a, b):
        dim = len(moments.total)
        if moments.count <= dim:
            warnings.warn(
                f"a Frechet distance of {dim} features from only {moments.count} images depends strongly "
                f"on their number; compare it with values from equal counts only",
                stacklevel=2,
            )
    return frechet_distance(a.mean, a.covariance(ddof), b.mean, b.covariance(ddof))
