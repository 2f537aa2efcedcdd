"""A check for what networks compute: NaN would become black in an image file, and a good value in a metric."""

from torch import Tensor


def require_finite(
    values: Tensor, what: str = "the network's images", advice: str = "use an earlier snapshot"
) -> Tensor:
    """Return values; raises ValueError if any is NaN or infinite."""
    if not values.isfinite().all():
        raise ValueError(f"{what} are not finite; {advice}")
    return values
