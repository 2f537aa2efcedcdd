"""Running detectors over pictures: what is kept, how often a detector runs, and the cache of real sets."""

from pathlib import Path

import pytest
import torch
from picture_sets import FixedPictures
from torch import Tensor

from metrics.features import FeatureRecord, Task, collect, real_records
from metrics.images import no_progress

CPU = torch.device("cpu")


class PixelMeans:
    """Mean of each colour."""

    name = "pixel_means"
    digest = "none"
    dim = 3

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.float().mean(dim=(2, 3))


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, [count, 3, 8, 8], generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_record_keeps_rows_classes_and_moments_of_the_first_pictures() -> None:
    rows, classes = torch.randn(10, 3), torch.arange(10)
    record = FeatureRecord(dim=3, count=7, keep_rows=True)
    for start in (0, 4, 8):
        record.append(rows[start : start + 4], classes[start : start + 4])
    assert torch.equal(record.rows, rows[:7])
    assert record.classes is not None and record.classes.tolist() == list(range(7))
    torch.testing.assert_close(record.moments.mean, rows[:7].double().mean(dim=0))


def test_halves_part_a_sorted_and_an_alternating_set_evenly() -> None:
    for classes in (torch.arange(1000) // 500, torch.arange(1000) % 2):
        record = FeatureRecord(dim=1, count=1000)
        record.append(classes.float().unsqueeze(1), None)
        assert [half.count for half in record.halves] == [500, 500]
        for half in record.halves:
            assert 0.4 < half.mean.item() < 0.6


def test_each_detector_runs_once_a_batch_and_only_as_long_as_needed() -> None:
    short, long, images = PixelMeans(), PixelMeans(), pictures(40)
    records = {name: FeatureRecord(3, count) for name, count in {"short": 15, "a": 40, "b": 25}.items()}
    tasks = [Task(short, [records["short"]]), Task(long, [records["a"], records["b"]])]
    seen = []
    batches = FixedPictures(images).batches(10)
    collect(tasks, batches, 40, CPU, "pictures", lambda what, done, total: seen.append((what, done, total)))
    assert (short.calls, long.calls) == (2, 4)
    assert [record.seen for record in records.values()] == [15, 40, 25]
    assert seen == [("pictures", done, 40) for done in (0, 10, 20, 30, 40)]


def test_too_few_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="8 pictures came where 9 were announced"):
        collect([], FixedPictures(pictures(8)).batches(4), 9, CPU, "real pictures", no_progress)


def test_gradients_and_autocast_are_off() -> None:
    class Linear(PixelMeans):
        weight = torch.nn.Parameter(torch.eye(3) * 1.001)

        def __call__(self, images: Tensor) -> Tensor:
            features = super().__call__(images) @ self.weight
            assert features.dtype == torch.float32 and not features.requires_grad
            return features

    with torch.autocast("cpu", dtype=torch.bfloat16):
        collect([Task(Linear(), [FeatureRecord(3, 8)])], FixedPictures(pictures(8)).batches(8), 8, CPU, "", no_progress)


def test_real_statistics_are_cached_by_content(tmp_path: Path) -> None:
    detector, images = PixelMeans(), pictures(20)

    def statistics(real: FixedPictures) -> FeatureRecord:
        return real_records({"means": detector}, real, 7, CPU, tmp_path, no_progress)["means"]

    first_set, same_set = FixedPictures(images, content_hash="a"), FixedPictures(images, content_hash="a")
    fresh, cached = statistics(first_set), statistics(same_set)
    assert (first_set.passes, same_set.passes) == (1, 0)
    for a, b in zip(fresh.halves, cached.halves, strict=True):
        assert a.count == b.count and torch.equal(a.outer, b.outer) and torch.equal(a.total, b.total)
    other_set = FixedPictures(pictures(20, seed=1), content_hash="b")
    assert not torch.equal(statistics(other_set).moments.total, fresh.moments.total)
    detector.digest = "other weights"
    again = FixedPictures(images, content_hash="a")
    statistics(again)
    assert again.passes == 1


def test_damaged_cache_file_is_computed_again(tmp_path: Path) -> None:
    real = FixedPictures(pictures(20))
    expected = real_records({"means": PixelMeans()}, real, 7, CPU, tmp_path, no_progress)["means"].moments.total
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="computing its content again"):
        record = real_records({"means": PixelMeans()}, real, 7, CPU, tmp_path, no_progress)["means"]
    assert torch.equal(record.moments.total, expected)
    assert real.passes == 2
    real_records({"means": PixelMeans()}, real, 7, CPU, tmp_path, no_progress)
    assert real.passes == 2


def test_cache_folder_that_cannot_be_written_only_warns(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.warns(UserWarning, match="STYLEFORMER_CACHE_DIR"):
        record = real_records({"means": PixelMeans()}, FixedPictures(pictures(9)), 4, CPU, blocker, no_progress)[
            "means"
        ]
    assert record.moments.count == 9
