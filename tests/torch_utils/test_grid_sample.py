"""grid_sample against PyTorch's own, and its derivatives, which PyTorch 2.11 lacks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.grid_sample import HAS_SECOND_DERIVATIVE, grid_sample


@pytest.fixture
def grid() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(2, 4, 6, 2, dtype=torch.float64) * 2.6 - 1.3  # some points lie outside


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 7, 5, dtype=torch.float64, requires_grad=True)


def test_equals_pytorch_forward_and_backward(images, grid):
    ours, theirs = grid_sample(images, grid), F.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    cotangent = torch.randn_like(ours)
    (ours_grad,) = torch.autograd.grad(ours, images, cotangent)
    (theirs_grad,) = torch.autograd.grad(theirs, images, cotangent)
    torch.testing.assert_close(ours_grad, theirs_grad, atol=0, rtol=0)


def test_derivatives_up_to_the_third(images, grid):
    assert torch.autograd.gradcheck(lambda x: grid_sample(x, grid).pow(3), images)
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid).pow(3), images)
    total: Tensor = grid_sample(images, grid).pow(3).sum()
    for _ in range(3):
        (derivative,) = torch.autograd.grad(total, images, create_graph=True)
        total = derivative.sum()
    expected = F.grid_sample(torch.ones_like(images), grid, align_corners=False).pow(3) * 6
    torch.testing.assert_close(total, expected.sum())


@pytest.mark.skipif(HAS_SECOND_DERIVATIVE, reason="PyTorch's own stores them")
def test_the_images_are_not_stored_for_backward(images, grid):
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x.shape), lambda x: x):
        grid_sample(images, grid)
    assert stored == [grid.shape]


def test_half_precision_images_are_sampled_at_the_precision_of_the_grid(images, grid):
    sampled = grid_sample(images.bfloat16(), grid.float())
    assert sampled.dtype == torch.bfloat16
    exact = grid_sample(images.bfloat16().double(), grid)
    torch.testing.assert_close(sampled.double(), exact, atol=0.01, rtol=0.01)
