"""Running detectors over images: what is kept, how often a detector runs, and the cache of real sets."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_sets import FixedImages
from torch import Tensor

from metrics.detectors import Detector
from metrics.features import FeatureRecord, Keep, RealRequest, collect, keep_features, real_features
from metrics.images import no_progress

CPU = torch.device("cpu")


def pixel_means(digest: str = "none", factor: float = 1.0) -> tuple[Detector, list[int]]:
    """A detector with the mean of each colour, and the sizes of the batches it was called with."""
    calls: list[int] = []

    def network(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.float().mean(dim=(2, 3)) * factor

    return Detector("pixel_means", network, 3, digest, resize="none"), calls


def random_images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, [count, 3, 8, 8], generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def records_of(detector: Detector, real: FixedImages, folder: Path, *wanted: tuple[int, Keep]) -> list[FeatureRecord]:
    requests = [RealRequest(detector, real, count, keep) for count, keep in wanted]
    found = real_features(requests, 7, CPU, folder, no_progress)
    keep_features(found, folder)
    return [features.record for features in found]


def record_of(detector: Detector, real: FixedImages, folder: Path) -> FeatureRecord:
    return records_of(detector, real, folder, (real.count, Keep.MOMENTS))[0]


def test_halves_part_a_sorted_and_an_alternating_set_evenly() -> None:
    for classes in (torch.arange(1000) // 500, torch.arange(1000) % 2):
        record = FeatureRecord(dim=1, count=1000)
        record.append(classes.float().unsqueeze(1), None, 0)
        assert [half.count for half in record.halves] == [500, 500]
        for half in record.halves:
            assert 0.4 < half.mean.item() < 0.6


def test_each_detector_runs_once_a_batch_and_only_as_long_as_needed() -> None:
    (short, short_calls), (long, long_calls), images = pixel_means(), pixel_means(), random_images(40)
    records = {name: FeatureRecord(3, count) for name, count in {"short": 15, "a": 40, "b": 25}.items()}
    long = replace(long, name="other")
    wanted = [(short, records["short"]), (long, records["a"]), (long, records["b"])]
    seen = []
    collect(
        wanted, lambda part: FixedImages(images).batches(part, 10), "images", 10, CPU, lambda *done: seen.append(done)
    )
    assert (len(short_calls), len(long_calls)) == (2, 4)
    assert [record.moments.count for record in records.values()] == [15, 40, 25]
    assert seen == [("images", done, 40) for done in (0, 10, 20, 30, 40)]


def test_too_few_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="8 images came where 9 were announced"):
        wanted = [(pixel_means()[0], FeatureRecord(3, 9))]
        collect(wanted, lambda part: [(random_images(8), None)], "real images", 4, CPU, no_progress)


def test_real_statistics_are_cached_by_content(tmp_path: Path) -> None:
    images = random_images(20)

    def statistics(real: FixedImages, digest: str = "none") -> FeatureRecord:
        return record_of(pixel_means(digest)[0], real, tmp_path)

    first_set, same_set = FixedImages(images, content_hash="a"), FixedImages(images, content_hash="a")
    fresh, cached = statistics(first_set), statistics(same_set)
    assert (first_set.passes, same_set.passes) == (1, 0)
    for a, b in zip(fresh.halves, cached.halves, strict=True):
        assert a.count == b.count and torch.equal(a.outer, b.outer) and torch.equal(a.total, b.total)
    other_set = FixedImages(random_images(20, seed=1), content_hash="b")
    assert not torch.equal(statistics(other_set).moments.total, fresh.moments.total)
    again = FixedImages(images, content_hash="a")
    statistics(again, "other weights")
    assert again.passes == 1


def test_damaged_cache_file_is_computed_again(tmp_path: Path) -> None:
    real = FixedImages(random_images(20))
    expected = record_of(pixel_means()[0], real, tmp_path).moments.total
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="computing its content again"):
        record = record_of(pixel_means()[0], real, tmp_path)
    assert torch.equal(record.moments.total, expected)
    assert real.passes == 2
    record_of(pixel_means()[0], real, tmp_path)
    assert real.passes == 2


def test_cache_folder_that_cannot_be_written_only_warns(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.warns(UserWarning, match=r"--cache or \$STYLEFORMER_CACHE_DIR"):
        record = record_of(pixel_means()[0], FixedImages(random_images(9)), blocker)
    assert record.moments.count == 9


def test_requests_share_a_pass_and_what_they_keep(tmp_path: Path) -> None:
    detector, real = pixel_means()[0], FixedImages(random_images(20))
    wanted = [(20, Keep.MOMENTS), (20, Keep.ROWS), (10, Keep.ROWS)]
    for passes in (1, 1):  # the second time all comes from the cache
        both, same, short = records_of(detector, real, tmp_path, *wanted)
        assert real.passes == passes and both is same
        assert torch.equal(short.rows, both.rows[:10]) and len(both.rows) == 20
        torch.testing.assert_close(both.moments.mean, both.rows.double().mean(dim=0))
    records_of(detector, real, tmp_path, (10, Keep.ROWS))
    assert real.passes == 1
    records_of(detector, real, tmp_path, (10, Keep.MOMENTS))
    assert real.passes == 2


def test_features_that_are_not_finite_are_an_error_and_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="real images: the features of detector pixel_means are not finite"):
        record_of(pixel_means(factor=float("nan"))[0], FixedImages(random_images(9)), tmp_path)
    assert not list(tmp_path.iterdir())
