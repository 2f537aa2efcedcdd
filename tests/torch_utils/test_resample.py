"""conv2d_resample against the recorded cases and against its three steps done one after the other."""

import golden_data
import pytest
import torch
import torch.nn.functional as F
from golden_data import relative_error
from torch import Tensor

from torch_utils.ops.resample import conv2d_resample
from torch_utils.ops.upfirdn2d import downsample_padding, setup_filter, upfirdn2d, upsample_padding

CONFIG, _, DATA = golden_data.load("conv2d_resample")
CASES = CONFIG["cases"]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_recorded_values_and_derivatives(index):
    case = dict(CASES[index])
    f = torch.from_numpy(DATA["filter:" + case.pop("f")])
    w = torch.tensor(DATA["w:" + case.pop("w")], requires_grad=True)
    x = torch.tensor(DATA["x"], requires_grad=True)
    y = conv2d_resample(x, w, f, **case)
    (y * torch.from_numpy(DATA[f"case{index}:r"])).sum().backward()
    assert relative_error(y, DATA[f"case{index}:y"]) < 2e-6
    assert relative_error(x.grad, DATA[f"case{index}:dx"]) < 2e-6
    assert relative_error(w.grad, DATA[f"case{index}:dw"]) < 2e-6


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize("padding", [0, 1, (3, -2, 0, 4)])
@pytest.mark.parametrize("flip_weight", [True, False])
def test_equals_the_three_steps_in_order(up, down, kernel, padding, flip_weight):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    w = torch.randn(6, 2, *kernel, dtype=torch.float64)
    f = setup_filter([[1.0, 2.0, 0.5], [0.0, 3.0, 1.0]])
    sides = torch.tensor([padding] * 4 if isinstance(padding, int) else padding)
    sides += torch.tensor(upsample_padding(f, (up, up))) if up > 1 else 0
    sides += torch.tensor(downsample_padding(f, (down, down))) if down > 1 else 0
    y = upfirdn2d(x, f if up > 1 else None, up=up, padding=sides.tolist(), gain=up**2)
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]), groups=2)
    y = upfirdn2d(y, f, down=down) if down > 1 else y
    actual = conv2d_resample(x, w, f, up=up, down=down, padding=padding, groups=2, flip_weight=flip_weight)
    torch.testing.assert_close(actual, y)


@pytest.mark.parametrize("case", [{"down": 2}, {"up": 2}, {"up": 2, "down": 2}, {}])
@pytest.mark.parametrize("kernel", [1, 3])
def test_first_and_second_derivative(case, kernel):
    torch.manual_seed(1)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    f = setup_filter([1, 3, 3, 1])

    def apply(x: Tensor, w: Tensor) -> Tensor:
        return conv2d_resample(x, w, f, padding=kernel // 2, **case)

    assert torch.autograd.gradcheck(apply, (x, w))
    assert torch.autograd.gradgradcheck(apply, (x, w))
