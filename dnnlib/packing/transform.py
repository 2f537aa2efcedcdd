"""Cropping and resizing, with the options of StyleGAN2-ADA's data set tool."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dnnlib.images.codec import Color, Layout, to_pillow

KINDS = ("center-crop", "center-crop-wide", "celeba", "pad")
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}  # both average when they make smaller

_CELEBA_PX = (178, 218)  # width and height of the images in img_align_celeba.zip
_CELEBA_CROP = (25, 57, 128, 128)  # left, top, width, height: the square around (89, 121), as is usual for GANs
_ROUNDING = 0.03  # relative change of an aspect ratio


@dataclass(frozen=True)
class ImageTransform:
    """Crop, size and background of every image; the help of dataset_tool.py describes the kinds."""

    kind: str | None = None  # of KINDS; None = no cropping
    width: int | None = None  # None = as it is
    height: int | None = None  # None = as it is
    resize_filter: str = "lanczos"  # of FILTERS
    background: Color | None = None  # behind transparent images; None = they are refused

    def __post_init__(self) -> None:
        if self.kind is None:
            return
        if self.kind != "celeba" and (self.width is None or self.height is None):
            raise ValueError(f"--transform={self.kind} needs the size of the new images; give --width and --height")
        if self.kind == "center-crop-wide" and self.width and self.height and self.height > self.width:
            raise ValueError(
                f"--transform=center-crop-wide makes squares of the width with black above and below, but --height="
                f"{self.height} exceeds --width={self.width}; give a height of at most the width"
            )

    def check(self, layout: Layout) -> None:
        """Raise ValueError if the transform does not apply to this layout; the message lacks the name of the image."""
        if self.kind == "celeba" and (layout.width, layout.height) != _CELEBA_PX:
            raise ValueError(
                f"is {layout.width}x{layout.height}, but --transform=celeba is for the aligned faces of CelebA, "
                f"{_CELEBA_PX[0]}x{_CELEBA_PX[1]}; use --transform=center-crop for other images"
            )
        width, height = self._resized(layout)
        if self.kind == "pad" and (layout.width > width or layout.height > height):
            raise ValueError(
                f"is {layout.width}x{layout.height}, more than the {width}x{height} that --transform=pad fills up; give "
                f"a larger --width and --height, or resize with --transform=center-crop"
            )

    def output(self, layout: Layout) -> Layout:
        width, height = self._resized(layout)
        return Layout(width, width if self.kind == "center-crop-wide" else height, layout.channels)

    def enlarges(self, layout: Layout) -> bool:
        if self.kind == "pad":
            return False
        _, _, crop_width, crop_height = self._crop(layout.width, layout.height)
        width, height = self._resized(layout)
        return width > crop_width or height > crop_height

    def stretches(self, layout: Layout) -> bool:
        """Whether resizing changes the aspect ratio by more than rounding does."""
        if self.kind == "pad":
            return False
        _, _, crop_width, crop_height = self._crop(layout.width, layout.height)
        width, height = self._resized(layout)
        return abs(crop_width * height / (crop_height * width) - 1) > _ROUNDING

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return an image cropped and resized; both uint8 [height, width, channels]. ValueError as of `check`."""
        layout = Layout(pixels.shape[1], pixels.shape[0], pixels.shape[2])
        self.check(layout)
        if self.kind == "pad":
            return _padded(pixels, *self._resized(layout))
        left, top, width, height = self._crop(layout.width, layout.height)
        cropped = pixels[top : top + height, left : left + width]
        size = self._resized(layout)
        resized = _resize(cropped, size, FILTERS[self.resize_filter])
        return _padded(resized, width=size[0], height=size[0]) if self.kind == "center-crop-wide" else resized

    def _resized(self, layout: Layout) -> tuple[int, int]:
        _, _, width, height = self._crop(layout.width, layout.height)
        return self.width or width, self.height or height

    def _crop(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the crop."""
        if self.kind == "celeba":
            return _CELEBA_CROP
        crop_width, crop_height = width, height
        if self.kind == "center-crop":
            crop_width = crop_height = min(width, height)
        elif self.kind == "center-crop-wide" and self.width and self.height:
            crop_width = min(width, max(round(height * self.width / self.height), 1))
            crop_height = min(height, max(round(width * self.height / self.width), 1))
        return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def _resize(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    resized = np.asarray(to_pillow(pixels).resize(size, resample))
    return resized.reshape(size[1], size[0], pixels.shape[2])


def _padded(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    canvas = np.zeros((height, width, pixels.shape[2]), np.uint8)
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
