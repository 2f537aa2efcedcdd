"""Whether a PyTorch's code runs on a GPU. Knows neither of them, so that it can be asked without PyTorch."""

import re


def has_kernels(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Whether a PyTorch with kernels for sm_75, ... or with code for compute_90, ... runs on this GPU."""
    own = capability[0] * 10 + capability[1]
    for name in architectures:
        kind, _, digits = name.partition("_")
        code = int(re.sub(r"\D", "", digits) or 0)
        if code <= own and (kind == "compute" or code // 10 == capability[0]):
            return True
    return not architectures
