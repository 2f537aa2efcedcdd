"""`python -m torch_utils.ops.native`: shows what the compiled operators need, builds them and checks them."""

import time
from pathlib import Path

import click
import torch

from torch_utils.ops.native import build, chosen_mode, enable, toolchain
from torch_utils.ops.native.loading import gpus_to_check, target_for
from torch_utils.ops.native.selftest import compare
from torch_utils.ops.native.toolchain import OperatorsUnavailable


@click.command()
@click.option("--compile-only", is_flag=True, help="Only compile, for the GPUs of --arch, which need not be present.")
@click.option("--arch", metavar="LIST", help="Compute capabilities, such as 7.5,9.0.  [default: the GPUs present]")
@click.option("--self-test", type=click.Choice(["cpu", "cuda"]), help="Only compare with the reference on this device.")
def main(compile_only: bool, arch: str | None, self_test: str | None) -> None:
    """Print whether the compiled operators can be used here, or why not."""
    try:
        if self_test:
            check(self_test)
            return
        if arch and not compile_only:
            raise click.UsageError("--arch goes with --compile-only")
        architectures = toolchain.parse_architectures(arch) if arch else toolchain.present_architectures()
        if compile_only and not architectures:
            raise click.UsageError("PyTorch sees no GPU: name the GPUs to compile for, --compile-only --arch=7.5,9.0")
        describe(architectures)
        if compile_only:
            compile_for(build.Target(tuple(architectures)))
            return
        device_type = "cuda" if architectures else "cpu"
        compile_for(target_for(device_type))
        check(device_type)
    except (ValueError, RuntimeError) as error:  # RuntimeError: of a faulty kernel
        raise click.ClickException(str(error)) from error


def describe(architectures: list[int]) -> None:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    report("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    report("GPUs", ", ".join(gpus) or "none")
    report("mode", chosen_mode())
    report("compiler", toolchain.find_host_compiler())
    for origin, path in toolchain.nvcc_places():
        if path.exists():
            report("nvcc", f"{path} ({origin}): {nvcc_version(path)}")
    if architectures:
        report("nvcc used", str(toolchain.find_nvcc(architectures).path))
    report("cache", str(build.cache_folder()))


def nvcc_version(path: Path) -> str:
    """Return "CUDA 13.0", or why this nvcc does not work."""
    try:
        return "CUDA {}.{}".format(*toolchain.inspect_nvcc(path).version)
    except OperatorsUnavailable as error:
        return str(error)


def compile_for(target: build.Target) -> None:
    is_cached = build.library_path(target).exists()
    start = time.perf_counter()
    report("library", str(build.build(target)))
    report("built", "before" if is_cached else f"in {time.perf_counter() - start:.0f} seconds")
    report("build log", str(build.log_path(target)))


def check(device_type: str) -> None:
    """Compare with the reference on the CPU, or on one GPU of each kind (see `gpus_to_check`)."""
    enable(device_type, "native")
    for index in gpus_to_check().values() if device_type == "cuda" else (0,):
        device = torch.device(device_type, index)
        report("self-test", f"{compare(device)} results agree with the reference on {device}")


def report(what: str, text: str) -> None:
    click.echo(f"{what + ':':<12}{text}")


if __name__ == "__main__":
    main()
