import torch
from torch import nn

from torch_utils.distributed import average_gradients


def test_gradients_become_finite_and_missing_ones_stay_missing() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.tensor([[1.0, float("nan")], [float("inf"), -float("inf")]])
    parameters[2].grad = torch.tensor([7.0])
    average_gradients(parameters, torch.zeros([]))
    assert parameters[0].grad.tolist() == [[1.0, 0.0], [1e5, -1e5]]
    assert parameters[1].grad is None
    assert parameters[2].grad.tolist() == [7.0]
