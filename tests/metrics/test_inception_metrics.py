"""FID, KID and Inception score of recorded images against the values that other programs have for them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from image_sets import write_pixels
from inception_golden import NAMES, Evaluation, logits_of, recorded_images

import calc_metrics
from dnnlib.files import file_sha256
from metrics.distances.inception_score import inception_score
from metrics.distances.kernel import kernel_distance, mean_discrepancy

pytestmark = pytest.mark.filterwarnings("ignore:a Frechet distance")


def distance_of_few(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance, ddof 0, of a few rows each: the trace of the root is the sum of a small matrix's singular values."""
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    trace_of_root = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum() / np.sqrt(len(a) * len(b))
    of_means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return of_means + np.square(centred_a).sum() / len(a) + np.square(centred_b).sum() / len(b) - 2 * trace_of_root


def test_fid_is_the_peers(evaluation: Evaluation, peers: dict[str, float]) -> None:
    exact = distance_of_few(evaluation.real_rows.double().numpy(), evaluation.fake_rows.double().numpy())
    assert evaluation.results["fid64_full"].value == pytest.approx(exact, rel=1e-6)
    assert evaluation.results["fid64_full"].value == pytest.approx(peers["exact.fid_ddof0"], rel=1e-4)
    of_means = (evaluation.real_rows.double().mean(dim=0) - evaluation.fake_rows.double().mean(dim=0)).square().sum()
    with_ddof_1 = of_means.item() + (evaluation.results["fid64_full"].value - of_means.item()) * 64 / 63
    for peer in ("torch_fidelity.frechet_inception_distance", "torchmetrics.fid_antialias_False", "exact.fid_ddof1"):
        assert with_ddof_1 == pytest.approx(peers[peer], rel=1e-4)
        assert evaluation.results["fid64_full"].value != pytest.approx(peers[peer], rel=1e-3)
    for wrong in ("pytorch_fid.fid_native", "torchmetrics.fid_antialias_True"):  # half a pixel, smoothing
        assert with_ddof_1 != pytest.approx(peers[wrong], rel=1e-2)


def test_kid_is_the_peers(evaluation: Evaluation, peers: dict[str, float]) -> None:
    real, fake = evaluation.real_rows, evaluation.fake_rows
    assert mean_discrepancy(fake, real) == pytest.approx(peers["exact.kid_fullset"], rel=1e-4)
    assert evaluation.results["kid64_full"].value == pytest.approx(peers["exact.kid_fullset"], rel=1e-4)
    mean, std = kernel_distance(fake, real, num_subsets=20, max_subset=32)
    assert mean == pytest.approx(peers["nvlabs_formula.kid_20x32_seed2020_f64"], rel=1e-4)
    assert mean == pytest.approx(peers["torch_fidelity.kernel_inception_distance_mean"], rel=1e-4)
    assert std == pytest.approx(peers["torch_fidelity.kernel_inception_distance_std"], rel=1e-4)


def test_inception_score_is_the_peers_without_bias(evaluation, peers, random_state):
    logits = logits_of(evaluation)
    mean, std = inception_score(logits, num_splits=4)
    assert mean - 1 == pytest.approx(peers["exact.is4_mean"] - 1, rel=1e-4)
    assert mean - 1 == pytest.approx(peers["torch_fidelity.inception_score_mean"] - 1, rel=1e-4)
    assert std == pytest.approx(peers["exact.is4_std"], rel=1e-4)
    assert inception_score(logits, num_splits=1)[0] - 1 == pytest.approx(peers["exact.is1"] - 1, rel=1e-4)
    biased = inception_score(logits + random_state["fc.bias"], num_splits=4)[0] - 1
    assert biased == pytest.approx(peers["exact.is4_mean_with_bias"] - 1, rel=1e-4)
    assert biased != pytest.approx(mean - 1, rel=1e-3)
    result = evaluation.results["is64"]
    assert (result.value, result.details["std"]) == pytest.approx(inception_score(logits, num_splits=10))


def test_rows_say_how_it_was_computed(evaluation: Evaluation, weights_file: Path) -> None:
    rows = {name: evaluation.results[name].row() for name in NAMES}
    for row in rows.values():
        assert row["detector_digest"] == file_sha256(weights_file)
        assert row["resize"] == "tensorflow1_bilinear_299"
        assert row["comparable_to_published"] is False  # weights of another hash
    expected = {"num_real": 64, "num_gen": 64, "real_hash": "a"}
    assert expected.items() <= rows["fid64_full"].items()
    assert (rows["is64"]["num_real"], rows["is64"]["real_hash"]) == (0, "")
    assert rows["fid64_full"]["settings"] == {"ddof": 0}
    assert rows["kid64_full"]["settings"] == {"subsets": 100, "subset_size": 64, "subset_seed": 2020, "degree": 3}
    assert rows["is64"]["settings"] == {"splits": 10, "shuffled": False, "bias": False, "ddof": 0}
    assert evaluation.passes == (1, 1)
    assert "64 generated, std 0." in evaluation.results["is64"].summary()
    assert " 0 real" not in evaluation.results["is64"].summary()


def test_calc_metrics_with_a_weights_file(archive_file: Path, tmp_path: Path, recorded: dict[str, np.ndarray]) -> None:
    for which, count in (("a", 3), ("b", 10)):
        write_pixels(tmp_path / f"{which}.zip", recorded_images(which)[:count].permute(0, 2, 3, 1))
    options = [f"--images={tmp_path / 'b.zip'}", f"--data={tmp_path / 'a.zip'}", "--metrics=fid3_full,is10"]
    options += ["--device=cpu", "--offline", f"--outdir={tmp_path}", f"--cache={tmp_path / 'cache'}"]
    result = CliRunner().invoke(calc_metrics.main, [*options, f"--detector={archive_file}"])
    assert result.exit_code == 0, result.output
    assert result.output.count("weights are not the published ones") == 2
    assert "two halves" not in result.output
    score, distance = (json.loads((tmp_path / f"metric-{name}.jsonl").read_text()) for name in ("is10", "fid3_full"))
    assert score["value"] == pytest.approx(1.0)  # one image a split
    features = [recorded[f"feat_{which}_head"][:3].astype(np.float64) for which in ("a", "b")]
    assert distance["value"] == pytest.approx(distance_of_few(*features), rel=1e-4)
    assert (distance["num_real"], distance["num_gen"]) == (3, 3)
    assert distance["detector_digest"] == score["detector_digest"] == file_sha256(archive_file)
