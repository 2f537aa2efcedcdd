"""Averaged gradients become finite, in few kernels."""

import pytest
import torch
from torch import nn

from torch_utils.distributed import average_gradients

NAN, INF = float("nan"), float("inf")


def parameters_with(*grads: list[float] | None) -> list[nn.Parameter]:
    """Parameters of two dimensions with these gradients."""
    parameters = [nn.Parameter(torch.zeros(1, len(values or [0]))) for values in grads]
    for parameter, values in zip(parameters, grads, strict=True):
        parameter.grad = None if values is None else torch.tensor([values])
    return parameters


def test_gradients_become_finite_and_missing_ones_stay_missing() -> None:
    parameters = parameters_with([1.0, NAN, INF, -INF], None, [7.0], [2.0, 3.0])
    average_gradients(parameters, torch.zeros([]))
    grads = [None if p.grad is None else p.grad.tolist() for p in parameters]
    assert grads == [[[1.0, 0.0, 1e5, -1e5]], None, [[7.0]], [[2.0, 3.0]]]


@pytest.mark.parametrize(
    ("grads", "loss", "expected"),
    [
        ([[1.0, -3e38], [3e38]], 2.0, True),  # the largest numbers are finite
        ([[1.0, 2.0], [NAN]], 2.0, False),
        ([[1.0, -INF], [2.0]], 2.0, False),
        ([[1.0, 2.0], [3.0]], NAN, False),
        ([[1.0, 2.0], [3.0]], INF, False),
    ],
)
def test_what_is_finite(grads: list[list[float]], loss: float, expected: bool) -> None:
    parameters = parameters_with(*grads)
    found = average_gradients(parameters, torch.tensor(loss))[1]
    assert found.shape == () and found.dtype == torch.bool and bool(found) is expected
