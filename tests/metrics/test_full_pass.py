"""A pass over 50,000 rows of 2048 features, and what memory it takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import resource, time, torch
from metrics.features import FeatureRecord, Pass, Task, collect
from metrics.distances.frechet import moments_distance

class Given:
    name, digest, dim = "given", "none", 2048
    def __call__(self, rows):
        return rows

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

rows = torch.randn(50_000, 2048, generator=torch.Generator().manual_seed(0))
before_mb, started_sec = peak_mb(), time.monotonic()
record = FeatureRecord(2048, len(rows))
batches = lambda part: ((rows[start : start + 64], None) for start in part[::64])
collect([Task(Given(), [record])], batches, Pass("rows", len(rows), 64, torch.device("cpu"), lambda *_: None))
distance = moments_distance(*record.halves, ddof=0)
print(distance, peak_mb() - before_mb, time.monotonic() - started_sec)
"""


@pytest.mark.slow
def test_memory_of_a_full_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    distance, extra_mb, seconds = map(float, done.stdout.split())
    print(f"{seconds:.1f} s, {extra_mb:.0f} MB beyond the rows")
    # Two samples of one Gaussian in D dimensions are about D^2 / 4 (1 / n + 1 / m) apart, here 84, far less than any row is long.
    assert distance == pytest.approx(2048**2 / 4 * (2 / 25_000), rel=0.02)
    assert extra_mb < 600
