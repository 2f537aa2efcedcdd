"""Shared by the tests of the operators: the compiled ones for the CPU, which execute what the GPU kernels do."""

from pathlib import Path

import pytest

from torch_utils.ops import native
from torch_utils.ops.native.build import Target, library_path
from torch_utils.ops.native.toolchain import OperatorsUnavailable


@pytest.fixture(scope="session")
def cpu_library() -> Path:
    """Builds the library into the cache folder, where the next run finds it; skips without a compiler."""
    try:
        native.require("cpu")
    except OperatorsUnavailable as error:
        pytest.skip(str(error))
    return library_path(Target())


@pytest.fixture
def compiled(cpu_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets bias_act and upfirdn2d run compiled on the CPU."""
    monkeypatch.setattr(native, "_chosen", "native")
    monkeypatch.setattr(native, "_ready", {})
