import pytest
import torch
from torch import Tensor

from torch_utils.ops.upfirdn2d import setup_filter, upsample2d
from torch_utils.ops.upsample import upsample2x

FILTER = setup_filter([1, 3, 3, 1]).double()


def filtered(x: Tensor) -> Tensor:
    return upsample2d(x.permute(0, 3, 1, 2), FILTER).permute(0, 2, 3, 1)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 1), (3, 8, 2, 16)])
def test_equals_the_filter_in_values_and_gradients(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y, expected = upsample2x(x), filtered(x)
    assert (y - expected).abs().max() < 1e-15 * 8
    grad = torch.randn_like(y)
    found, wanted = (torch.autograd.grad(output, x, grad)[0] for output in (y, expected))
    assert (found - wanted).abs().max() < 1e-15 * 32


def test_derivatives_of_any_order() -> None:
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(upsample2x, x)
    assert torch.autograd.gradgradcheck(upsample2x, x)
