"""Shared by the tests of the Inception metrics: random weights, and one evaluation of the recorded images with them."""

import json
from pathlib import Path

import inception_golden
import numpy as np
import pytest
import torch
from golden_data import DATA, arrays
from image_sets import FixedImages, GeneratedImages
from inception_golden import NAMES, Evaluation, recorded_images, save_archive
from torch import Tensor

from metrics import registry
from metrics.detectors import Detector
from metrics.families.inception import DETECTOR
from metrics.features import Keep
from metrics.metric import Inputs, Measurement, Metric, RealUse
from metrics.networks.inception import InceptionV3, torchscript_names
from metrics.weights.published import Source


@pytest.fixture(scope="session")
def recorded() -> dict[str, np.ndarray]:
    """Recorded features of the random weights."""
    return arrays("metrics/inception_random_v1")


@pytest.fixture(scope="session")
def peers() -> dict[str, float]:
    """Values of other programs for these images and weights."""
    return json.loads((DATA / "metrics/inception_random_v1.json").read_text())["values"]


@pytest.fixture(scope="session")
def random_state() -> dict[str, Tensor]:
    """State of the Inception network, which no test may change."""
    return inception_golden.random_state()


@pytest.fixture(scope="session")
def network(random_state: dict[str, Tensor]) -> InceptionV3:
    """The network with random weights."""
    with torch.device("meta"):
        network = InceptionV3()
    network.load_state_dict(random_state, assign=True)
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def weights_file(random_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as a .pth file."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state, path)
    return path


@pytest.fixture(scope="session")
def evaluation(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The recorded images "b" judged against "a", by all metrics at once: the only long pass of these tests."""
    seen: list[tuple[Detector, Tensor, Tensor]] = []

    def spy(inputs: Inputs) -> Measurement:
        real, fake = inputs.both
        seen.append((inputs.detector, real.rows, fake.rows))
        return Measurement(0.0)

    real = FixedImages(recorded_images("a"), content_hash="a")
    fake = GeneratedImages(recorded_images("b"), content_hash="b")
    with pytest.MonkeyPatch.context() as patch:
        rows = Metric("features", DETECTOR, spy, Keep.ROWS, RealUse(Keep.ROWS), num_gen=64)
        patch.setitem(registry.METRICS, "spy", rows)
        with pytest.warns(UserWarning, match="2048 features from only"):
            weights = Source({"inception": weights_file}, cache_folder=tmp_path_factory.mktemp("cache"))
            names = [*NAMES, "spy"]
            results = registry.evaluate(names, real, fake, batch_size=32, weights=weights)
    detector, real_rows, fake_rows = seen[0]
    by_name = {result.metric: result for result in results}
    return Evaluation(by_name, real_rows, fake_rows, detector, (real.passes, fake.passes))


@pytest.fixture(scope="session")
def archive_file(random_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as a TorchScript archive with the names of inception-2015-12-05.pt."""
    tensors = {theirs: random_state[ours] for theirs, ours in torchscript_names().items()}
    return save_archive(tmp_path_factory.mktemp("weights") / "random.pt", tensors)
