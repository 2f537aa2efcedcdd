"""Labels kept as classes read like one-hot arrays."""

import numpy as np
import pytest

from training.data.labels import Labels


@pytest.mark.parametrize("chosen", [3, slice(1, 4), [0, 4, 4], np.array([2, 1])])
def test_classes_are_read_as_one_hot_labels(chosen: object) -> None:
    classes = np.array([2, 0, 3, 3, 0])
    dense = np.eye(5, dtype=np.float32)[classes]
    labels, vectors = Labels(classes, 5), Labels(dense)
    for ours in (labels, vectors):
        assert np.array_equal(ours[chosen], dense[chosen]) and ours[chosen].dtype == np.float32  # type: ignore[index]
        assert ours.shape == (5, 5) and b"".join(ours.content()) == dense.tobytes()
        assert ours.unused() == [1, 4] and ours.argmax().tolist() == ours.classes().tolist() == classes.tolist()  # type: ignore[union-attr]
        assert np.array_equal(ours.twice().subset(np.array([7]))[:], dense[[2]])


def test_vectors_are_kept() -> None:
    labels = Labels(np.array([[0.5, -1.0], [0.0, 2.0]]))
    assert labels[1].tolist() == [0.0, 2.0] and labels.classes() is None and labels.argmax().tolist() == [0, 1]
