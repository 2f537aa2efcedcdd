"""The ways to compute that the report compares, by the names of its table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to compute."""

    name: str  # as the report spells it
    mode: str  # as benchmarks.modes spells it
    ops: str  # of bias_act and upfirdn2d: reference or native
    least_sec: float
    most_sec: float


def gpu_variants(half: str) -> list[Variant]:
    """Return what runs on a GPU, most informative first; `half` is bf16, or fp16 before Ampere, which has no TF32."""
    tf32 = [Variant("tf32", "tf32", "reference", 12, 45)] if half == "bf16" else []
    return [
        Variant("fp32", "fp32", "reference", 15, 60),
        Variant(half, half, "reference", 12, 45),
        Variant(f"{half}+compile", f"{half}+compile", "reference", 40, 170),  # the first to compile, others profit
        *tf32,
        Variant(f"{half}+compile+graphs", f"{half}+graphs", "reference", 20, 110),
        Variant(f"{half}+compile+native", f"{half}+compile", "native", 20, 110),
    ]


def cpu_variants() -> list[Variant]:
    """Return what runs on every CPU."""
    return [Variant("fp32", "fp32", "reference", 15, 120), Variant("bf16", "bf16", "reference", 15, 120)]
