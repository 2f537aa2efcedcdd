// The geometry of upfirdn2d: the pixels and taps of a result, and the tiles of the work.
#pragma once

#include "scalar.h"

namespace styleformer {

// The arguments; the same structure as in torch_utils/ops/native/library.py.
struct UpfirdnCall {
    const void* x;
    const void* f;  // type Math: [taps_y, taps_x], or [taps_x] if separable
    void* y;
    void* stream;
    double gain;
    int64_t batch, channels, in_height, in_width, out_height, out_width, pad_x0, pad_y0;
    int32_t up_x, up_y, down_x, down_y, taps_x, taps_y;
    int32_t separable, flip, channels_last, dtype;
};

constexpr int kStripOutputs = 8;      // results in a column that one thread computes if the factors are compile-time constants
constexpr int kTileOutputs = 4096;    // at most
constexpr int kFewOutputs = 1024;     // a tile of this size is not halved to get more tiles
constexpr int kTileWidth = 64;        // at most
constexpr int kTileLanes = 32;        // channels of a pixel that a tile takes, at most
constexpr int kEnoughTiles = 512;     // for the largest GPUs; with fewer, tiles are halved
constexpr int kSectorBytes = 32;      // the least a GPU reads from memory
constexpr int kSharedBytes = 24576;   // per block, if possible: six fit into a multiprocessor with 164 KB
constexpr int kSharedLimit = 49152;   // available on every GPU

// For result `index`, where result 0 starts at a pixel: the first tap on a pixel, and the index of that pixel.
// Result i starts at i * down on the axis with zeros inserted; pixels are at the multiples of up.
HD constexpr int phase_tap(int index, int up, int down) { return (up - index * down % up) % up; }
HD constexpr int phase_start(int index, int up, int down) { return (index * down + up - 1) / up; }

// Exact quotients of numbers below 2^16 by divisors below 2^16.
struct SmallDivider {
    uint32_t factor, identity;  // as in Divider

    SmallDivider() = default;
    explicit SmallDivider(int d)
        : factor(d == 1 ? 0 : uint32_t((uint64_t(1) << 32) / uint64_t(d)) + 1), identity(d == 1 ? ~uint32_t(0) : 0) {}

    HD int quotient(int n) const {
        return int(uint32_t((uint64_t(uint32_t(n)) * factor) >> 32) + (uint32_t(n) & identity));
    }
};

// One axis of a tile.
struct TileAxis {
    int up, down, taps;
    int outputs, inputs;  // of a tile
    int64_t pad, shift;   // shift: the first tile starts that much before the first result, at a pixel
    int64_t tiles;
};

struct UpfirdnPlan {
    UpfirdnCall call;
    TileAxis x, y;
    int64_t planes, lanes;            // of the tensor
    int tile_planes, tile_lanes;      // of a tile
    int64_t lane_tiles, tiles;
    bool is_whole;                    // a line is a row of pixels with all channels; else some channels of one pixel
    int pack;                         // elements of a line read at once: 16 bytes, or 1 element
    int lines, line_length, pitch;    // pitch: elements of a row of the tile's input
    int64_t line_limit;               // elements of a line of memory
    int between_offset, pixels_offset, shared_bytes;
    Divider by_tiles_x, by_tiles_y, by_lane_tiles;
    SmallDivider by_line, by_columns, by_rows, by_width, by_strips, by_lanes;
};

// The part [from, to) of a tile's axis that the tensor has.
struct Range {
    int from, to;

    HD bool has(int i) const { return unsigned(i - from) < unsigned(to - from); }
};

// The position of a tile. rest: zeros between the tile's first result and the first pixel of its input.
struct TilePlace {
    int64_t input, output;               // offset of the tile's first element in either tensor
    Range in_rows, in_columns, in_line;  // in_line: of a line, in elements
    Range out_rows, out_columns;
    int planes, lanes, rest_x, rest_y;
    int shift;  // elements read before the first pixel, to start at a multiple of 16 bytes
};

struct Phase {
    int tap, input;  // the first tap of a result on a pixel, and that pixel, both relative to the tile
};

HD int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

HD int64_t ceil_div_signed(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

template <int UP, int DOWN, bool KNOWN>
HD Phase phase_of(const TileAxis& axis, int index, int rest) {
    if constexpr (KNOWN) return Phase{phase_tap(index, UP, DOWN), phase_start(index, UP, DOWN)};
    if (axis.up == 1) return Phase{0, index * axis.down};
    int ahead = index * axis.down - rest, input = (ahead + axis.up - 1) / axis.up;  // rest < up
    return Phase{input * axis.up - ahead, input};
}

HD int at_most(int64_t n, int limit) { return int(n < limit ? n : limit); }

// The part of start .. start + count - 1 inside 0 .. size - 1.
HD Range range_of(int64_t start, int count, int64_t size) {
    return Range{start >= 0 ? 0 : at_most(-start, count), size <= start ? 0 : at_most(size - start, count)};
}

HD TilePlace place_of(const UpfirdnPlan& p, int64_t tile) {
    TilePlace place;
    int64_t row = p.by_tiles_x.quotient(tile), tile_x = p.by_tiles_x.remainder(tile, row);
    int64_t rest = p.by_tiles_y.quotient(row), tile_y = p.by_tiles_y.remainder(row, rest);
    int64_t group = p.by_lane_tiles.quotient(rest), lane = p.by_lane_tiles.remainder(rest, group) * p.tile_lanes;
    int64_t plane = group * p.tile_planes;
    int64_t out_x = tile_x * p.x.outputs - p.x.shift, out_y = tile_y * p.y.outputs - p.y.shift;
    int64_t start_x = out_x * p.x.down - p.x.pad, start_y = out_y * p.y.down - p.y.pad;
    int64_t in_x = p.x.up == 1 ? start_x : ceil_div_signed(start_x, p.x.up);
    int64_t in_y = p.y.up == 1 ? start_y : ceil_div_signed(start_y, p.y.up);
    int64_t first = p.is_whole ? in_x * p.lanes : lane;
    int64_t line = first & -int64_t(p.pack);  // where lines start
    int64_t pixel = (plane * p.call.in_height + in_y) * p.call.in_width + (p.is_whole ? 0 : in_x);
    place.input = pixel * p.lanes + line;
    place.output = ((plane * p.call.out_height + out_y) * p.call.out_width + out_x) * p.lanes + lane;
    place.in_rows = range_of(in_y, p.y.inputs, p.call.in_height);
    place.in_columns = range_of(in_x, p.x.inputs, p.call.in_width);
    place.in_line = range_of(line, p.line_length, p.line_limit);
    place.out_rows = range_of(out_y, p.y.outputs, p.call.out_height);
    place.out_columns = range_of(out_x, p.x.outputs, p.call.out_width);
    place.planes = at_most(p.planes - plane, p.tile_planes);
    place.lanes = at_most(p.lanes - lane, p.tile_lanes);
    place.rest_x = int(in_x * p.x.up - start_x);
    place.rest_y = int(in_y * p.y.up - start_y);
    place.shift = int(first - line);
    return place;
}

inline TileAxis make_axis(int up, int down, int taps, int64_t pad, bool known) {
    int64_t shift = known ? ((-pad) % up + up) % up : 0;
    return TileAxis{up, down, taps, 1, 1, pad, shift, 1};
}

inline int power_of_two_from(int64_t n, int limit) {
    int power = 1;
    while (power < n && power < limit) power *= 2;
    return power;
}

// Everything that follows from the size of a tile, except the dividers.
inline void lay_out(UpfirdnPlan& p, int size, int math_size) {
    const UpfirdnCall& call = p.call;
    p.x.inputs = ((p.x.outputs - 1) * p.x.down + p.x.taps - 1) / p.x.up + 1;
    p.y.inputs = ((p.y.outputs - 1) * p.y.down + p.y.taps - 1) / p.y.up + 1;
    p.is_whole = p.tile_lanes == p.lanes && p.tile_lanes < kTileLanes;
    p.line_limit = p.is_whole ? call.in_width * p.lanes : p.lanes;
    const int pack = 16 / size;
    bool fits = is_aligned(call.x) && p.line_limit % pack == 0 && (p.is_whole || p.tile_lanes % pack == 0);
    p.pack = fits ? pack : 1;
    int rows = p.tile_planes * p.y.inputs;
    p.lines = p.is_whole ? rows : rows * p.x.inputs;
    p.line_length = p.is_whole ? int(round_up(p.x.inputs * p.lanes + p.pack - 1, p.pack)) : p.tile_lanes;
    p.pitch = p.is_whole ? p.line_length : p.x.inputs * p.tile_lanes;
    int taps = call.separable ? p.x.taps : p.x.taps * p.y.taps;
    int between = call.separable ? rows * p.x.outputs * p.tile_lanes : 0;
    p.between_offset = int(round_up(taps * math_size, 16));
    p.pixels_offset = p.between_offset + int(round_up(between * math_size, 16));
    p.shared_bytes = p.pixels_offset + int(round_up(rows * p.pitch * size, 16));
    p.x.tiles = ceil_div(call.out_width + p.x.shift, p.x.outputs);
    p.y.tiles = ceil_div(call.out_height + p.y.shift, p.y.outputs);
    p.lane_tiles = ceil_div(p.lanes, p.tile_lanes);
    p.tiles = p.x.tiles * p.y.tiles * p.lane_tiles * ceil_div(p.planes, p.tile_planes);
}

// The most rows of results of a tile of this width and number of lanes within `limit` bytes; 0 if not even a strip fits.
inline int tallest(const UpfirdnPlan& p, int size, int math_size, int strip, int limit) {
    int row_bytes = p.pitch * size + (p.call.separable ? p.x.outputs * p.tile_lanes * math_size : 0);
    int64_t rows = (limit - p.between_offset - 32) / row_bytes;  // 32: what rounding to 16 bytes may add
    if (rows * p.y.up < p.y.taps) return 0;
    int64_t outputs = (rows * p.y.up - p.y.taps) / p.y.down + 1;
    int64_t most = kTileOutputs / (p.x.outputs * p.tile_lanes), all = round_up(p.call.out_height + p.y.shift, strip);
    outputs = outputs < most ? outputs : most;
    return int(outputs < all ? outputs / strip * strip : all);
}

// Bytes read per result, in whole sectors of memory.
inline double fetch_cost(const UpfirdnPlan& p, int size) {
    int64_t pixel = round_up(p.tile_lanes * size, kSectorBytes);
    int64_t line = p.is_whole ? p.line_length * size + kSectorBytes : p.x.inputs * pixel;
    return double(line * p.y.inputs) / (double(p.x.outputs) * p.y.outputs * p.tile_lanes);
}

// Chooses the tile that reads the least, over all widths and free numbers of lanes, whose input fits into `limit` bytes.
// False if none does.
inline bool choose_tile(UpfirdnPlan& p, int size, int math_size, int strip, int limit) {
    const int sector = kSectorBytes / size, least = strip > 1 ? 4 : 1;  // 4: a multiple of the factors that are known
    double least_cost = -1;
    UpfirdnPlan best = p;
    for (int lanes = at_most(p.lanes, kTileLanes);;) {
        const int widest = power_of_two_from(p.call.out_width + p.x.shift, kTileWidth);
        for (int width = widest > least ? widest : least; width >= least; width /= 2) {
            p.tile_lanes = lanes;
            p.x.outputs = width;
            p.y.outputs = strip;
            lay_out(p, size, math_size);
            p.y.outputs = tallest(p, size, math_size, strip, limit);
            if (p.y.outputs == 0) continue;
            lay_out(p, size, math_size);
            double cost = fetch_cost(p, size);
            if (least_cost < 0 || cost < least_cost) {
                least_cost = cost;
                best = p;
            }
        }
        if (strip > 1 || lanes == 1) break;
        lanes = lanes > sector ? int(round_up(lanes / 2, sector)) : (lanes + 1) / 2;
    }
    p = best;
    return least_cost >= 0;
}

// Several planes per tile if they are small.
inline void take_planes(UpfirdnPlan& p, int limit) {
    int64_t planes = kTileOutputs / (int64_t(p.x.outputs) * p.y.outputs * p.tile_lanes);
    int64_t fitting = (limit - p.between_offset) / (p.shared_bytes - p.between_offset);
    planes = planes < fitting ? planes : fitting;
    p.tile_planes = int(planes < 1 ? 1 : planes < p.planes ? planes : p.planes);
}

// Halves the planes of a tile, or its larger side. False where it should stay as it is.
inline bool make_smaller(UpfirdnPlan& p, int strip) {
    const int larger = p.x.outputs > p.y.outputs ? p.x.outputs : p.y.outputs;
    if (p.tile_planes > 1) {
        p.tile_planes /= 2;
    } else if (p.x.outputs * p.y.outputs * p.tile_lanes <= kFewOutputs || larger <= 2 * kStripOutputs) {
        return false;
    } else if (p.x.outputs > p.y.outputs) {
        p.x.outputs /= 2;
    } else {
        p.y.outputs = int(round_up(p.y.outputs / 2, strip));
    }
    return true;
}

// `known`: factors, taps and lanes are compile-time constants. Then a thread computes strips of kStripOutputs.
inline UpfirdnPlan make_plan(const UpfirdnCall& call, int size, int math_size, bool known) {
    const int strip = known ? kStripOutputs : 1;
    UpfirdnPlan p = {};
    p.call = call;
    p.lanes = call.channels_last ? call.channels : 1;
    p.planes = call.channels_last ? call.batch : call.batch * call.channels;
    p.x = make_axis(call.up_x, call.down_x, call.taps_x, call.pad_x0, known);
    p.y = make_axis(call.up_y, call.down_y, call.taps_y, call.pad_y0, known);
    p.tile_planes = 1;
    int limit = kSharedBytes;
    bool fits = choose_tile(p, size, math_size, strip, limit);
    if (!fits) fits = choose_tile(p, size, math_size, strip, limit = kSharedLimit);
    if (!fits) return p;  // no tiles
    take_planes(p, limit);
    do lay_out(p, size, math_size);
    while (p.tiles < kEnoughTiles && make_smaller(p, strip));
    p.by_tiles_x = Divider(p.x.tiles);
    p.by_tiles_y = Divider(p.y.tiles);
    p.by_lane_tiles = Divider(p.lane_tiles);
    p.by_line = SmallDivider(p.line_length / p.pack);
    p.by_columns = SmallDivider(p.x.inputs);
    p.by_rows = SmallDivider(p.y.inputs);
    p.by_width = SmallDivider(p.x.outputs * p.tile_lanes);
    p.by_strips = SmallDivider(p.y.outputs / strip);
    p.by_lanes = SmallDivider(p.tile_lanes);
    return p;
}

}  // namespace styleformer
