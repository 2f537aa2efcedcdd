"""Labels of a data set in memory: one-hot labels take 8 bytes per image, whatever the number of classes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_ROWS = 4096  # made at once for `content`


class Labels:
    """Labels, float32 [images, label_dim]: read like an array by the first index, stored as classes where they are one-hot.

    Made of vectors, [images, label_dim], or of classes, int64 [images], whose one-hot labels have length `num_classes`.
    """

    def __init__(self, values: np.ndarray, num_classes: int = 0) -> None:
        self._values = values if values.ndim == 1 else values.astype(np.float32)
        self.are_vectors = values.ndim == 2
        self.shape = (len(values), values.shape[1] if self.are_vectors else num_classes)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, chosen: int | slice | list[int] | np.ndarray) -> np.ndarray:
        """Return a label, [label_dim], or several, [count, label_dim]."""
        values: np.ndarray = self._values[chosen]
        if self.are_vectors:
            return values
        return (np.asarray(values)[..., None] == np.arange(self.shape[1])).astype(np.float32)

    def subset(self, chosen: np.ndarray) -> "Labels":
        return Labels(self._values[chosen], self.shape[1])

    def argmax(self) -> np.ndarray:
        """Return the index of the largest number of each label, int64 [images]: the class where they are one-hot."""
        return self._values.argmax(axis=1) if self.are_vectors else self._values

    def classes(self) -> Tensor | None:
        """Return the class of each label, int64 [images]; None where one is not one-hot."""
        if self.are_vectors:
            is_binary = self.shape[1] > 0 and np.isin(self._values, (0, 1)).all()
            if not (is_binary and (self._values.sum(axis=1) == 1).all()):
                return None
        return torch.from_numpy(self.argmax())

    def unused(self) -> list[int]:
        """Return the positions where all labels are 0: the classes without images."""
        if self.are_vectors:
            return np.flatnonzero(~self._values.any(axis=0)).tolist()
        return np.flatnonzero(np.bincount(self._values, minlength=self.shape[1]) == 0).tolist()

    def content(self) -> Iterator[bytes]:
        """Yield the bytes of the labels as one array of float32."""
        for start in range(0, len(self), _ROWS):
            yield self[start : start + _ROWS].tobytes()
