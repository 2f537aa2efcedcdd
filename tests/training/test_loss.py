import math

import pytest
import torch

from training.losses.functions import path_length_penalty, path_lengths, r1_penalty


def test_r1_of_a_linear_judge_is_its_squared_weight() -> None:
    weight = torch.randn(3, 4, 4)
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty(images, (images * weight).sum(dim=[1, 2, 3]).unsqueeze(1))
    torch.testing.assert_close(penalty, weight.square().sum().expand(2))


def test_path_lengths_of_a_linear_generator() -> None:
    ws = torch.randn(2, 3, 5, requires_grad=True)
    images = (ws.sum(dim=[1, 2])[:, None, None, None] * torch.ones(1, 1, 4, 4)) * 2
    noise = torch.randn(2, 1, 4, 4)
    slope = 2 * noise.sum(dim=[1, 2, 3]) / math.sqrt(16)  # the same for every style channel
    torch.testing.assert_close(path_lengths(images, ws, noise), slope.abs() * math.sqrt(5))


def test_path_length_mean_moves_before_the_penalty_and_carries_gradient() -> None:
    lengths = torch.tensor([2.0, 4.0], requires_grad=True)
    penalty, mean = path_length_penalty(lengths, torch.tensor(1.0), decay=0.25)
    assert mean.item() == pytest.approx(1 + 0.25 * (3 - 1))
    assert not mean.requires_grad
    torch.testing.assert_close(penalty, (lengths - mean).square().detach(), check_stride=False)
    penalty.sum().backward()
    deviation = torch.tensor([2.0, 4.0]) - mean
    expected = 2 * deviation - 2 * deviation.sum() * 0.25 / 2  # the mean's share flows back too
    torch.testing.assert_close(lengths.grad, expected)
