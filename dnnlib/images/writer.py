"""Writes images in background threads; each file appears whole or not at all."""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from dnnlib.files import temporary_name

IMAGES_AHEAD = 16  # of each thread: waiting to be written
QUALITY = 95  # of JPEG and WebP
_LOW_COMPRESSION = 1  # of PNG: several times faster than the default, and hardly larger


class ImageWriter:
    """A context in which `add` takes images; all are written when it ends.

    An error of a thread is raised by a later `add` or at the end of the context. After an error in the context, such as
    Ctrl-C, what a thread has begun is finished and what waits is dropped.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="image-writer")
        self._waiting: deque[Future[None]] = deque()
        self._max_waiting = threads * IMAGES_AHEAD

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._threads.shutdown(cancel_futures=True)

    def add(self, path: Path, pixels: np.ndarray) -> None:
        """Have an image, uint8 [height, width, 1 or 3], written; its suffix says how. Waits while too many are waiting.

        Raises:
            OSError: An earlier image could not be written; the message names it.
        """
        if len(self._waiting) >= self._max_waiting:
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(write_image, path, pixels))


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 [height, width, 1 or 3], as PNG, JPEG or WebP; the file takes its name when it is whole.

    Unlike `dnnlib.files.atomic_write` it neither waits for the disk nor looks for what killed processes left, either of
    which would take longer than all the rest.
    """
    file_format = path.suffix[1:].upper().replace("JPG", "JPEG")
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    temporary = temporary_name(path)
    try:
        image.save(temporary, format=file_format, quality=QUALITY, compress_level=_LOW_COMPRESSION)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
