"""bias_act against the recorded cases, and what the recordings do not show: dtypes, second order, stored memory."""

import golden_data
import pytest
import torch
from golden_data import relative_error
from torch import Tensor

from torch_utils.ops.bias_act import ACTIVATIONS, bias_act

CONFIG, _, DATA = golden_data.load("bias_act")
CASES = CONFIG["cases"]
pytestmark = pytest.mark.usefixtures("implementation")


@pytest.mark.parametrize("index", range(len(CASES)))
def test_recorded_values_and_derivatives(index):
    case = dict(CASES[index])
    dim = case.pop("bias_dim")
    x = torch.tensor(DATA["x"], requires_grad=True)
    bias = None if dim is None else torch.tensor(DATA[f"b_dim{dim}"], requires_grad=True)
    y = bias_act(x, bias, 1 if dim is None else dim, **case)
    (y * torch.from_numpy(DATA["r"])).sum().backward()
    assert relative_error(y, DATA[f"case{index}:y"]) < 2e-6
    assert relative_error(x.grad, DATA[f"case{index}:dx"]) < 2e-6
    if bias is not None:
        assert relative_error(bias.grad, DATA[f"case{index}:db"]) < 2e-6


def test_default_slopes_and_gains_are_the_recorded_ones():
    recorded = {name: (value["def_alpha"], value["def_gain"]) for name, value in CONFIG["defaults"].items()}
    assert {name: (spec.alpha, spec.gain) for name, spec in ACTIVATIONS.items()} == recorded


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_derivatives_to_the_third_order(act):
    torch.manual_seed(0)
    sizes = ((2, 3, 2, 1), (3,), (1, 1, 2, 1), ())
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]

    def apply(x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        y = bias_act(x, bias, act=act, gain=1.7, clamp=1.9, noise=noise, noise_strength=strength)
        return y.square()

    def first_derivatives(*inputs: Tensor) -> Tensor:
        grads = torch.autograd.grad(apply(*inputs).sum(), inputs, create_graph=True)
        return torch.cat([grad.square().flatten() for grad in grads])

    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(first_derivatives, inputs)


def test_the_input_is_never_overwritten():
    for act in ACTIVATIONS:
        x, bias = torch.randn(2, 3), torch.randn(3)
        before = x.clone(), bias.clone()
        bias_act(x, act=act)
        bias_act(x, bias, act=act, clamp=0.1)
        bias_act(x, act=act, gain=1)
        assert torch.equal(x, before[0]) and torch.equal(bias, before[1]), act


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_of_the_input(dtype):
    x, bias = torch.randn(4, 6), torch.randn(6)
    y = bias_act(x.to(dtype), bias, act="swish")
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), bias_act(x, bias, act="swish"), atol=0.03, rtol=0.02)


@pytest.mark.parametrize("batch", [1, 2])
def test_noise_is_added_before_the_bias(batch):
    x, bias = torch.randn(2, 5, 3), torch.randn(3)
    noise, strength = torch.randn(batch, 5, 1), torch.tensor(0.7)
    y = bias_act(x, bias, dim=2, act="lrelu", clamp=1.0, noise=noise, noise_strength=strength)
    torch.testing.assert_close(y, bias_act(x + noise * strength, bias, dim=2, act="lrelu", clamp=1.0))
    half = bias_act(x.bfloat16(), bias, dim=2, noise=noise, noise_strength=strength)
    assert half.dtype == torch.bfloat16
