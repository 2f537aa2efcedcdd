"""Times bias_act and upfirdn2d: compiled operators, the reference, and the reference under torch.compile.

Bandwidth counts what has to be moved once: inputs read and results written. It is set against a plain copy of the same
amount on the same device.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import now
from torch_utils.ops import native
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

MODES = ("native", "reference", "compiled")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Operator = Callable[[Tensor], Tensor]
Make = Callable[[Tensor], Operator]  # for tensors like this one


@dataclass(frozen=True)
class Case:
    """One operator on one shape."""

    name: str
    shape: tuple[int, ...]  # of the input
    operator: Make
    channels_last: bool = False


def biased(dim: int, with_noise: bool = False) -> Make:
    """Leaky ReLU with bias and clamp, and noise as in the encoder layer."""

    def make(like: Tensor) -> Operator:
        bias = torch.randn(like.shape[dim], device=like.device, dtype=like.dtype)
        noise = torch.randn_like(like[:, :, :1]) if with_noise else None
        strength = torch.tensor(0.1, device=like.device) if with_noise else None
        return lambda x: bias_act(x, bias, dim, "lrelu", clamp=256.0, noise=noise, noise_strength=strength)

    return make


def filtered(up: int = 1, down: int = 1, taps: int = 4) -> Make:
    """[1, 3, 3, 1] as a matrix, or 12 taps along both axes, at the size that the factors ask for."""

    def make(like: Tensor) -> Operator:
        f = setup_filter([1, 3, 3, 1] if taps == 4 else list(range(1, taps + 1))).to(like.device)
        around = [(taps - down + up) // 2, (taps - down - up + 1) // 2]
        return lambda x: upfirdn2d(x, f, up, down, [*around, *around])

    return make


def cases(is_gpu: bool) -> Iterator[Case]:
    """Tensors of 256 MB in float32 and those of training; on the CPU small ones."""
    large = (64, 256, 64, 64) if is_gpu else (2, 32, 64, 64)
    small = (32, 256, 16, 16) if is_gpu else (2, 32, 16, 16)
    tokens = (32, 1024, 256) if is_gpu else (2, 256, 64)
    images = (64, 3, 256, 256) if is_gpu else (2, 3, 64, 64)
    for size, shape in (("large", large), ("small", small)):
        for channels_last in (False, True):
            yield Case(f"bias_act {size}", shape, biased(1), channels_last)
            yield Case(f"upfirdn2d {size}", shape, filtered(), channels_last)
            yield Case(f"upfirdn2d down 2 {size}", shape, filtered(down=2), channels_last)
    yield Case("bias_act tokens", tokens, biased(2))
    yield Case("bias_act tokens, noise", tokens, biased(2, with_noise=True))
    yield Case("upfirdn2d up 2, 12 taps", images, filtered(up=2, taps=12))
    yield Case("upfirdn2d down 2, 12 taps", images, filtered(down=2, taps=12))


def milliseconds(function: Callable[[], object], device: torch.device, least_sec: float = 0.2) -> float:
    """Return the mean time of a call after three unmeasured ones."""
    for _ in range(3):
        function()
    calls, start = 0, now(device)
    while (elapsed := now(device) - start) < least_sec:
        for _ in range(10):
            function()
        calls += 10
    return elapsed / calls * 1000


def measure(case: Case, mode: str, device: torch.device, dtype: torch.dtype) -> Iterator[dict[str, object]]:
    """Rows of one case in one mode: forward, and forward with backward."""
    native.prepare(device, "native" if mode == "native" else "reference")
    x = torch.randn(case.shape, device=device).to(dtype)
    x = x.to(memory_format=torch.channels_last) if case.channels_last else x
    operator = case.operator(x)
    if mode == "compiled":
        torch.compiler.reset()
        operator = torch.compile(operator)
    with torch.no_grad():
        y = operator(x)
        weight = torch.randn_like(y)
        forward = milliseconds(lambda: operator(x), device)
    leaf = x.detach().requires_grad_()
    both = milliseconds(lambda: torch.autograd.grad(operator(leaf), leaf, weight), device)
    moved = (x.numel() + y.numel()) * x.element_size()
    one_way = torch.empty(moved // 2, dtype=torch.uint8, device=device)
    other = torch.empty_like(one_way)
    copy = moved / milliseconds(lambda: other.copy_(one_way), device) / 1e6
    for name, ms in (("forward", forward), ("forward and backward", both)):
        row = {"case": case.name, "shape": list(case.shape), "dtype": str(dtype).removeprefix("torch."),
               "layout": "channels last" if case.channels_last else "contiguous", "pass": name, "mode": mode,
               "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "ms": ms}  # fmt: skip
        if name == "forward":
            row |= {"gb_per_sec": moved / ms / 1e6, "of_copy": moved / ms / 1e6 / copy}
        yield row


@click.command()
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--dtypes", default="float32,float16", show_default=True, help=f"Of {', '.join(DTYPES)}.")
@click.option("--modes", help=f"Of {', '.join(MODES)}.  [default: all; native,reference on the CPU]")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the rows here.")
def main(device: str, dtypes: str, modes: str | None, json_path: Path | None) -> None:
    """Time the operators and print a table."""
    is_gpu = torch.device(device).type == "cuda"
    if not is_gpu:
        torch.set_num_threads(1)  # the compiled operators have one thread there
    chosen = (modes or ",".join(MODES if is_gpu else MODES[:2])).split(",")
    unknown = [word for word in chosen if word not in MODES] + [
        word for word in dtypes.split(",") if word not in DTYPES
    ]
    if unknown:
        raise click.UsageError(f"{', '.join(unknown)} is none of {', '.join([*MODES, *DTYPES])}")
    rows = []
    for dtype in dtypes.split(","):
        for case in cases(is_gpu):
            for mode in chosen:
                for row in measure(case, mode, torch.device(device), DTYPES[dtype]):
                    rows.append(row)
                    speed = (
                        f"{row['gb_per_sec']:8.1f} GB/s  {row['of_copy']:4.0%} of a copy" if "of_copy" in row else ""
                    )
                    click.echo(
                        f"{row['case']:<26}{row['dtype']:<9}{row['layout']:<14}{row['pass']:<21}{mode:<10}"
                        f"{row['ms']:9.3f} ms {speed}"
                    )
    if json_path:
        json_path.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
