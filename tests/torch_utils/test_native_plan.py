"""How upfirdn2d is cut into tiles: how much of the input a tile fetches, against the best of all tiles.

A program of a few lines around csrc/upfirdn2d_plan.h makes the plans; the best tile is found by trying all.
"""

import itertools
import subprocess
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
import pytest

from torch_utils.ops.native import build, toolchain

PROGRAM = """
#include <cstdio>
#include "upfirdn2d_plan.h"

int main() {
    using namespace styleformer;
    UpfirdnCall call = {};
    int batch, channels, side, up, down, taps, size, math_size, known;
    while (scanf("%d %d %d %d %d %d %d %d %d %d %d", &batch, &channels, &side, &up, &down, &taps, &call.separable,
                 &call.channels_last, &size, &math_size, &known) == 11) {
        call.batch = batch, call.channels = channels, call.out_height = call.out_width = side;
        call.in_height = call.in_width = int64_t(side) * down / up + 1;
        call.up_x = call.up_y = up, call.down_x = call.down_y = down, call.taps_x = call.taps_y = taps;
        UpfirdnPlan p = make_plan(call, size, math_size, known);
        printf("%d %d %d %d %d %d %lld %d\\n", p.x.outputs, p.y.outputs, p.x.inputs, p.y.inputs, p.tile_planes,
               p.tile_lanes, (long long)p.tiles, p.shared_bytes);
    }
}
"""
SHARED_BYTES, MOST_RESULTS, SECTOR_BYTES, MOST_LANES = 24576, 4096, 32, 32
FACTORS = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (4, 1), (1, 4)]
FILTERS = [(12, 1), (4, 0), (3, 1), (6, 1), (20, 1), (32, 1), (3, 0), (8, 0), (16, 0)]  # taps, separable


@dataclass(frozen=True)
class Call:
    batch: int
    channels: int
    side: int  # of the result
    up: int
    down: int
    taps: int
    separable: int
    channels_last: int
    size: int  # of a number in memory, and in the computation
    math_size: int
    known: int  # to the compiler: strips of 8 results, and 32 channels of each pixel

    @property
    def lanes(self) -> int:
        return self.channels if self.channels_last else 1


@dataclass(frozen=True)
class Tile:
    out_x: int
    out_y: int
    in_x: int
    in_y: int
    planes: int
    lanes: int
    tiles: int
    shared_bytes: int

    @property
    def fetched(self) -> float:
        """Pixels fetched for a result."""
        return self.in_x * self.in_y / (self.out_x * self.out_y)

    def sectors(self, call: Call) -> float:
        """The same, counting what is read along where the lanes of a pixel are no whole sectors of memory."""
        return self.fetched * waste(call, self.lanes)


def waste(call: Call, lanes: int) -> float:
    """By how much whole sectors of memory are more than these lanes of a pixel; all lanes lie together with the next."""
    used = lanes * call.size
    return -(-used // SECTOR_BYTES) * SECTOR_BYTES / used if lanes < call.lanes else 1.0


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Call]], list[Tile]]:
    """Compiles the program; skips without a compiler."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "plan.cpp").write_text(PROGRAM, encoding="utf-8")
    try:
        compiler = toolchain.find_host_compiler()
    except toolchain.OperatorsUnavailable as error:
        pytest.skip(str(error))
    command = [compiler, "-std=c++17", "-O1", f"-I{build.SOURCE_DIR}", "plan.cpp", "-o", "plan"]
    subprocess.run(command, cwd=folder, check=True)

    def run(calls: list[Call]) -> list[Tile]:
        lines = "".join(" ".join(map(str, astuple(call))) + "\n" for call in calls)
        done = subprocess.run([folder / "plan"], input=lines, capture_output=True, text=True, check=True)
        return [Tile(*map(int, line.split())) for line in done.stdout.splitlines()]

    return run


def best(call: Call, most_results: int, lanes: tuple[int, ...]) -> float:
    """The least that any tile fetches that fits into the memory of a block, in pixels with whole sectors."""
    out_x, out_y = np.arange(1, 129)[:, None], np.arange(1, 129)[None, :]
    in_x, in_y = (((out - 1) * call.down + call.taps - 1) // call.up + 1 for out in (out_x, out_y))
    fetched, least = in_x * in_y / (out_x * out_y), np.inf
    for lane in lanes:
        numbers = (call.taps if call.separable else call.taps**2) + in_y * out_x * lane * call.separable
        fits = numbers * call.math_size + in_x * in_y * lane * call.size <= SHARED_BYTES
        fits &= out_x * out_y * lane <= most_results
        least = min(least, fetched[fits].min(initial=np.inf) * waste(call, lane))
    return float(least)


def lanes_to_try(call: Call) -> tuple[int, ...]:
    most = min(call.lanes, MOST_LANES)
    return (most,) if call.known else tuple(n for n in sorted({1, 2, 4, 8, 16, 32, call.lanes}) if n <= most)


def calls(side: int, batch: int, channels: tuple[int, ...]) -> list[Call]:
    found = []
    for (taps, separable), (up, down), count, (size, math_size) in itertools.product(
        FILTERS, FACTORS, channels, ((4, 4), (2, 4), (8, 8))
    ):
        has_kernel = (taps, separable) in ((12, 1), (4, 0)) and (up, down) in FACTORS[:3] and math_size == 4
        if down <= taps:
            found.append(Call(batch, abs(count), side, up, down, taps, separable, int(count > 0), size, math_size,
                              int(has_kernel and (count < 0 or (not separable and count >= MOST_LANES)))))  # fmt: skip
    return found


def test_large_images_fetch_little_more_than_the_best_tile_would(plan) -> None:
    """In each layout (a negative number of channels: contiguous)."""
    chosen = calls(side=512, batch=32, channels=(-64, 3, 24, 64))
    for call, tile in zip(chosen, plan(chosen), strict=True):
        assert tile.tiles >= 512 and tile.shared_bytes <= SHARED_BYTES, call
        assert tile.sectors(call) <= 1.5 * best(call, MOST_RESULTS, lanes_to_try(call)), (call, tile)


def test_wavelets_of_the_augmentation_in_channels_last(plan) -> None:
    """12 taps on colour images: 28 pixels a result and more, as long as tiles were cut to one row before they got narrower."""
    up, down, wide = (Call(32, n, 256, u, d, 12, 1, 1, 4, 4, 0) for n, u, d in ((3, 2, 1), (3, 1, 2), (64, 1, 2)))
    fetched = [tile.fetched for tile in plan([up, down, wide])]
    assert fetched[0] < 1 and fetched[1] < 8 and fetched[2] < 16


def test_small_tensors_are_cut_into_squares_rather_than_rows(plan) -> None:
    """Where tiles are made smaller to have more of them, no other shape with as many results fetches much less."""
    chosen = calls(side=256, batch=1, channels=(-3, 3))
    for call, tile in zip(chosen, plan(chosen), strict=True):
        results = tile.out_x * tile.out_y * tile.lanes
        assert tile.planes == 1, call
        assert tile.sectors(call) <= 1.5 * best(call, results, (tile.lanes,)), (call, tile)
