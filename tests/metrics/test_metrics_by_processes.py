"""calc_metrics.py with one process and with two, a second time, and after the images changed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import FixedImages, GeneratedImages, write_pixels
from inception_golden import recorded_images

from calc_metrics import Job
from calc_metrics import measure as measure_by_program
from metrics import features, registry
from metrics.detectors import Detector, DetectorKind
from metrics.features import Keep, RealRequest, real_features
from metrics.images import no_progress
from metrics.weights.published import Source
from torch_utils import distributed
from torch_utils.distributed import PeerError

ROOT = Path(__file__).parents[2]
RANDCONV = "proxy_fd_randconv_v1"
INCEPTION = ["fid64_full", "fid64", "kid64_full", "is64", "dc645_full"]


def calc_metrics(folder: Path, metrics: str, *options: str) -> str:
    """Run the program with its cache and results in a folder, and return what it prints."""
    command = [sys.executable, str(ROOT / "calc_metrics.py"), f"--metrics={metrics}", f"--cache={folder / 'cache'}"]
    command += [f"--outdir={folder}", "--offline", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "leaked" not in done.stderr, done.stdout + done.stderr
    return done.stdout


def rows(folder: Path, metric: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"metric-{metric}.jsonl").read_text().splitlines()]


def write_noise(path: Path, count: int, seed: int) -> Path:
    return write_pixels(path, np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


class RealImagesOfOne:
    """Real images whose hash cannot be computed by the second process."""

    @property
    def content_hash(self) -> str:
        if distributed.rank() == 1:
            raise RuntimeError("the share is gone")
        return "images"


def measure(folder: Path) -> None:
    distributed.init(torch.device("cpu"))
    detector = Detector("means", torch.nn.Identity(), 3, "none", "none", is_published=False)
    request = RealRequest(detector, RealImagesOfOne(), 4, Keep.ROWS)  # type: ignore[arg-type]
    with pytest.raises((PeerError, RuntimeError), match="the share is gone"):
        real_features([request], 4, torch.device("cpu"), folder, no_progress)
    (folder / str(distributed.rank())).touch()
    distributed.shutdown()


def run_out_of_memory(*arguments: Any) -> None:
    raise torch.OutOfMemoryError("no memory for a record")


def evaluate_with_faults(folder: Path) -> None:
    """In one process: no memory for the features of real images, then of generated ones; another detector than elsewhere."""
    distributed.init(torch.device("cpu"))
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    registry.METRICS[RANDCONV] = replace(registry.METRICS[RANDCONV], num_gen=20)
    given, rank = ([RANDCONV], FixedImages(images), GeneratedImages(images)), distributed.rank()
    for module in (features, registry):
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                patch.setattr(module, "FeatureRecord", run_out_of_memory)
            with pytest.raises((PeerError, RuntimeError), match="no memory for a record"):
                registry.evaluate(*given, weights=Source(cache_folder=folder / "cache"))
    build = registry.DETECTORS["randconv_v1"].build
    registry.DETECTORS["randconv_v1"] = DetectorKind(lambda context: replace(build(context), digest=str(rank)))
    with pytest.raises(
        PeerError, match=r"the detectors of process 1 differ .*: they share no cache folder .*STYLEFORMER_CACHE_DIR"
    ):
        registry.evaluate(*given, weights=Source(cache_folder=folder / "cache"))
    (folder / str(rank)).touch()
    distributed.shutdown()


def measure_a_replaced_network(folder: Path) -> None:
    rank = os.environ["RANK"]
    job = Job({"network": "state.pt", "data": ""}, [RANDCONV], Source(), None, "cpu", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.images.reference_dataset", lambda path: None)
        patch.setattr("calc_metrics.open_fake", lambda *_: SimpleNamespace(content_hash=rank))
        with pytest.raises(PeerError, match=r"the networks of process 1 differ .* was replaced meanwhile"):
            measure_by_program(job)
    (folder / rank).touch()
    distributed.shutdown()


@pytest.mark.parametrize("measure", [measure, evaluate_with_faults, measure_a_replaced_network])
def test_an_error_of_one_process_is_raised_in_all(measure: Callable[[Path], None], tmp_path: Path) -> None:
    distributed.spawn(measure, 2, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_two_processes_and_the_cache(tmp_path: Path) -> None:
    real, fake = write_noise(tmp_path / "real.zip", 300, 0), write_noise(tmp_path / "fake.zip", 2000, 1)
    options = [f"--data={real}", f"--images={fake}", "--batch=50"]
    assert "From the cache" not in calc_metrics(tmp_path / "one", RANDCONV, *options)
    calc_metrics(tmp_path / "two", RANDCONV, *options, "--gpus=2")
    (one,), (two,) = rows(tmp_path / "one", RANDCONV), rows(tmp_path / "two", RANDCONV)
    assert (two["value"], two["floor"]) == pytest.approx((one["value"], one["floor"]), rel=1e-9)
    real.unlink()
    write_noise(real, 300, 2)
    output = calc_metrics(tmp_path / "one", RANDCONV, *options)
    changed = rows(tmp_path / "one", RANDCONV)[-1]
    assert "From the cache" not in output and changed["value"] != one["value"]
    output = calc_metrics(tmp_path / "one", RANDCONV, *options)
    assert f"From the cache: the features of the real images, for {RANDCONV}." in output
    assert rows(tmp_path / "one", RANDCONV)[-1]["value"] == changed["value"]


@pytest.mark.slow
def test_all_inception_metrics_with_one_process_and_two(weights_file: Path, tmp_path: Path) -> None:
    for which in ("a", "b"):
        write_pixels(tmp_path / f"{which}.zip", recorded_images(which).permute(0, 2, 3, 1))
    options = [f"--data={tmp_path / 'a.zip'}", f"--images={tmp_path / 'b.zip'}", f"--detector={weights_file}"]
    for gpus in ("1", "2"):
        calc_metrics(tmp_path / gpus, ",".join(INCEPTION), *options, "--batch=16", f"--gpus={gpus}")
    for name in INCEPTION:
        (one,), (two,) = rows(tmp_path / "1", name), rows(tmp_path / "2", name)
        assert two["value"] == pytest.approx(one["value"], rel=1e-9), name
    output = calc_metrics(tmp_path / "1", ",".join(INCEPTION), *options, "--batch=16")
    assert "From the cache: the features of the real images, for fid64_full, fid64, kid64_full, dc645_full." in output
    for name in INCEPTION:
        first, second = rows(tmp_path / "1", name)
        assert first["value"] == second["value"], name
