"""Draws curves into a PNG file with Pillow, which every installation has."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dnnlib.files import atomic_write

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 640, 400  # px of a panel
LEFT, TOP, RIGHT, BOTTOM = 64, 40, 16, 48  # px around its axes
SMOOTH = 2  # drawn so many times larger and reduced
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2")
MAX_TICKS = 6


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    x_label: str
    curves: dict[str, Points]  # by name in the legend


def draw_chart(path: Path, panels: Sequence[Panel]) -> bool:
    """Write panels side by side as one PNG; those without a point are left out. False where nothing is left to draw."""
    drawn = [panel for panel in panels if any(panel.curves.values())]
    if not drawn:
        return False
    image = Image.new("RGB", (WIDTH * len(drawn) * SMOOTH, HEIGHT * SMOOTH), "white")
    for index, panel in enumerate(drawn):
        _Axes(ImageDraw.Draw(image), WIDTH * index, panel).draw()
    buffer = io.BytesIO()
    image.resize((WIDTH * len(drawn), HEIGHT), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
    return True


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, at most MAX_TICKS of them: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / (MAX_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the largest value, a little apart where they are the same."""
    low, high = min(values), max(values)
    pad = (abs(low) or 1.0) * 0.01 if low == high else 0.0
    return low - pad, high + pad


class _Axes:
    """One panel on the enlarged image."""

    def __init__(self, pen: ImageDraw.ImageDraw, offset: int, panel: Panel) -> None:
        self.pen, self.offset, self.panel = pen, offset, panel
        points = [point for curve in panel.curves.values() for point in curve]
        self.x_span, self.y_span = (span([point[axis] for point in points]) for axis in (0, 1))
        self.font = ImageFont.load_default(13 * SMOOTH)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point on the image."""
        (x0, x1), (y0, y1) = self.x_span, self.y_span
        right = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return (self.offset + right) * SMOOTH, down * SMOOTH

    def text(self, x: float, y: float, text: str, anchor: str, colour: str = "black") -> None:
        """Write at a place of the panel, in its own px."""
        self.pen.text(((self.offset + x) * SMOOTH, y * SMOOTH), text, colour, self.font, anchor)

    def draw(self) -> None:
        """Draw grid, curves and legend."""
        self.text(WIDTH / 2, 6, self.panel.title, "ma")
        self.text(WIDTH / 2, HEIGHT - 6, self.panel.x_label, "md")
        for x in ticks(*self.x_span):
            self.pen.line([self.place(x, self.y_span[0]), self.place(x, self.y_span[1])], "#e4e4e4", SMOOTH)
            self.text(self.place(x, 0)[0] / SMOOTH - self.offset, HEIGHT - BOTTOM + 6, f"{x:g}", "ma", "#555555")
        for y in ticks(*self.y_span):
            self.pen.line([self.place(self.x_span[0], y), self.place(self.x_span[1], y)], "#e4e4e4", SMOOTH)
            self.text(LEFT - 6, self.place(0, y)[1] / SMOOTH, f"{y:.4g}", "rm", "#555555")
        for index, (name, points) in enumerate(self.panel.curves.items()):
            colour = COLOURS[index % len(COLOURS)]
            places = [self.place(*point) for point in points]
            if len(places) > 1:
                self.pen.line(places, colour, 2 * SMOOTH, "curve")
            elif places:
                self.pen.circle(places[0], 2 * SMOOTH, colour)
            self.text(WIDTH - RIGHT - 8, TOP + 4 + 17 * index, name, "ra", colour)
