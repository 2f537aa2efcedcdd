"""Shared by the tests of the operators: the kernels compiled for the CPU, which execute the same code as on a GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_utils.ops import kernels, native
from torch_utils.ops.native.build import Target, library_path
from torch_utils.ops.native.loading import load_library
from torch_utils.ops.native.toolchain import OperatorsUnavailable


@pytest.fixture(scope="session")
def cpu_library() -> Path:
    """Build the library into the cache folder, where the next run finds it; skip without a compiler."""
    try:
        load_library("cpu")
    except OperatorsUnavailable as error:
        pytest.skip(str(error))
    return library_path(Target())


@pytest.fixture
def compiled(cpu_library: Path) -> Iterator[None]:
    """Run bias_act and upfirdn2d by kernels on the CPU."""
    native.enable("cpu", "native")
    yield
    kernels.disable_all()


@pytest.fixture(params=["reference", "kernels"])
def implementation(request: pytest.FixtureRequest) -> None:
    """Run a test by plain PyTorch and by the kernels."""
    if request.param == "kernels":
        request.getfixturevalue("compiled")
