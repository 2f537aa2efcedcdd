// upfirdn2d: insert zeros (up), pad or crop, filter, keep every n-th pixel (down), in one pass over memory.
//
// A block computes a tile of the result: it copies the pixels the tile depends on to shared memory, then filters them.
// One indexing serves both memory layouts: an image is rows of pixels, a pixel is `lanes` neighbouring channels (1 in the
// contiguous layout, where every channel is a separate plane).

#include "launch.h"
#include "upfirdn2d_plan.h"

namespace styleformer {

// UP, DOWN, TAPS (along both axes) and LANES (of a tile) are compile-time constants; LANES = 0: none of them is.
template <class T, int UP, int DOWN, int TAPS, bool SEPARABLE, int LANES>
struct UpfirdnBody {
    using M = typename T::Math;
    static constexpr bool kKnown = LANES > 0;
    static constexpr int kPasses = SEPARABLE ? 2 : 1;
    static constexpr int kFetches = 2;  // packs in flight per thread
    static constexpr int kStrip = kKnown ? kStripOutputs : 1;  // results in a column that one thread computes
    static constexpr int kPhaseTaps = kKnown ? TAPS / UP : 1;  // taps on a pixel, not on an inserted zero
    static constexpr int kRows = phase_start(kStrip - 1, UP, DOWN) + kPhaseTaps;  // of the input for a strip

    HD static int lanes_of(const UpfirdnPlan& p) { return kKnown ? LANES : p.tile_lanes; }
    HD static bool is_whole(const UpfirdnPlan& p) { return kKnown ? LANES == 1 : p.is_whole; }
    HD static int column_of(const UpfirdnPlan& p, int element) {
        return kKnown ? element / LANES : p.by_lanes.quotient(element);
    }

    HD static M* filter(unsigned char* shared) { return reinterpret_cast<M*>(shared); }
    HD static M* between(const UpfirdnPlan& p, unsigned char* shared) {
        return reinterpret_cast<M*>(shared + p.between_offset);
    }
    HD static T* pixels(const UpfirdnPlan& p, unsigned char* shared) {
        return reinterpret_cast<T*>(shared + p.pixels_offset);
    }

    using Place = TilePlace;
    HD static Place place(const UpfirdnPlan& p, int64_t tile) { return place_of(p, tile); }

    HD static void fetch(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int thread) {
        const int taps = SEPARABLE ? p.x.taps : p.x.taps * p.y.taps;
        DO_NOT_UNROLL for (int k = thread; k < taps; k += kThreads) {  // in the order of the pixels
            M tap = static_cast<const M*>(p.call.f)[p.call.flip ? k : taps - 1 - k];
            filter(shared)[k] = SEPARABLE ? tap : tap * M(p.call.gain);
        }
        p.pack > 1 ? fetch_pixels<kPackOf<T>>(p, place, shared, thread) : fetch_pixels<1>(p, place, shared, thread);
    }

    // A line is contiguous in memory: a row of pixels, or the tile's channels of one pixel.
    template <int PACK>
    HD static void fetch_pixels(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int thread) {
        const int packs_per_line = p.line_length / PACK, packs = p.lines * packs_per_line;
        const int64_t row_stride = p.call.in_width * p.lanes, plane_stride = p.call.in_height * row_stride;
        DO_NOT_UNROLL for (int first = thread; first < packs; first += kFetches * kThreads) {
            Pack<T, PACK> values[kFetches];
            int places[kFetches];
            UNROLL for (int u = 0; u < kFetches; u++) {
                const int i = first + u * kThreads;
                int line = p.by_line.quotient(i), at = (i - line * packs_per_line) * PACK, column = 0, row = line;
                if (!is_whole(p)) {
                    row = p.by_columns.quotient(line);
                    column = line - row * p.x.inputs;
                }
                int plane = p.by_rows.quotient(row), y = row - plane * p.y.inputs;
                bool exists = i < packs && plane < place.planes && place.in_rows.has(y) && place.in_line.has(at) &&
                              (is_whole(p) || place.in_columns.has(column));
                int64_t offset = plane * plane_stride + y * row_stride + column * p.lanes + at;
                values[u] = {};
                if (exists) values[u] = read_pack<T, PACK>(p.call.x, place.input + offset);
                places[u] = row * p.pitch + column * lanes_of(p) + at;
            }
            UNROLL for (int u = 0; u < kFetches; u++)
                if (first + u * kThreads < packs) write_shared_pack<T, PACK>(pixels(p, shared), places[u], values[u]);
        }
    }

    // Along x, for every row of the tile's input: pixels -> between.
    HD static void first_pass(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int thread) {
        const int width = p.x.outputs * p.tile_lanes, rows = p.tile_planes * p.y.inputs;
        const M* taps = filter(shared);
        for (int i = thread; i < rows * width; i += kThreads) {
            int row = p.by_width.quotient(i), element = i - row * width;
            int column = column_of(p, element), lane = element - column * lanes_of(p);
            Phase phase = phase_of<UP, DOWN, kKnown>(p.x, column, place.rest_x);
            const T* from = pixels(p, shared) + row * p.pitch + place.shift + phase.input * lanes_of(p) + lane;
            M sum = 0;
            if constexpr (kKnown) {
                UNROLL for (int j = 0; j < kPhaseTaps; j++)
                    sum += from[j * lanes_of(p)].get() * taps[phase.tap + j * UP];
            } else {
                for (int k = phase.tap; k < p.x.taps; k += p.x.up, from += p.tile_lanes) sum += from->get() * taps[k];
            }
            between(p, shared)[i] = sum;
        }
    }

    HD static void last_pass(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int thread) {
        const int width = p.x.outputs * p.tile_lanes, strips = p.y.outputs / kStrip;
        DO_NOT_UNROLL for (int i = thread; i < p.tile_planes * strips * width; i += kThreads) {
            int strip_row = p.by_width.quotient(i), element = i - strip_row * width;
            int plane = p.by_strips.quotient(strip_row), y = (strip_row - plane * strips) * kStrip;
            int column = column_of(p, element), lane = element - column * lanes_of(p);
            if (plane >= place.planes || lane >= place.lanes || !place.out_columns.has(column)) continue;
            M sums[kStrip] = {};
            if constexpr (SEPARABLE) {
                down_columns(p, place, shared, plane * p.y.inputs * width + element, y, sums);
            } else {
                over_matrix(p, place, shared, plane * p.y.inputs, column, lane, y, sums);
            }
            const int64_t row_stride = p.call.out_width * p.lanes, plane_stride = p.call.out_height * row_stride;
            T* result = static_cast<T*>(p.call.y) + place.output + plane * plane_stride + y * row_stride +
                        column * p.lanes + lane;
            UNROLL for (int r = 0; r < kStrip; r++, result += row_stride)
                if (place.out_rows.has(y + r)) result->set(sums[r]);
        }
    }

    // The second pass of a separable filter: along y, between -> a strip of results.
    HD static void down_columns(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int at, int y,
                                M* sums) {
        const M* taps = filter(shared);
        const int width = p.x.outputs * p.tile_lanes;
        Phase phase = phase_of<UP, DOWN, kKnown>(p.y, y, place.rest_y);
        const M* from = between(p, shared) + at + phase.input * width;
        if constexpr (kKnown) {
            UNROLL for (int row = 0; row < kRows; row++, from += width) {
                M value = *from;
                UNROLL for (int r = 0; r < kStrip; r++) {
                    const int j = row - phase_start(r, UP, DOWN);
                    if (j >= 0 && j < kPhaseTaps) sums[r] += value * taps[phase_tap(r, UP, DOWN) + j * UP];
                }
            }
        } else {
            for (int k = phase.tap; k < p.y.taps; k += p.y.up, from += width) sums[0] += *from * taps[k];
        }
        UNROLL for (int r = 0; r < kStrip; r++) sums[r] *= M(p.call.gain);
    }

    // A filter matrix: pixels -> a strip of results. Every pixel is read once for all its results.
    HD static void over_matrix(const UpfirdnPlan& p, const Place& place, unsigned char* shared, int first_row,
                               int column, int lane, int y, M* sums) {
        Phase along_x = phase_of<UP, DOWN, kKnown>(p.x, column, place.rest_x);
        Phase along_y = phase_of<UP, DOWN, kKnown>(p.y, y, place.rest_y);
        const T* from = pixels(p, shared) + (first_row + along_y.input) * p.pitch + place.shift +
                        along_x.input * lanes_of(p) + lane;
        const M* taps = filter(shared) + along_x.tap;
        if constexpr (kKnown) {
            M own_taps[TAPS][kPhaseTaps];  // for this column
            UNROLL for (int k = 0; k < TAPS; k++)
                UNROLL for (int j = 0; j < kPhaseTaps; j++) own_taps[k][j] = taps[k * TAPS + j * UP];
            UNROLL for (int row = 0; row < kRows; row++, from += p.pitch) {
                M values[kPhaseTaps];
                UNROLL for (int j = 0; j < kPhaseTaps; j++) values[j] = from[j * lanes_of(p)].get();
                UNROLL for (int r = 0; r < kStrip; r++) {
                    const int down = row - phase_start(r, UP, DOWN);
                    if (down < 0 || down >= kPhaseTaps) continue;
                    UNROLL for (int j = 0; j < kPhaseTaps; j++)
                        sums[r] += values[j] * own_taps[phase_tap(r, UP, DOWN) + down * UP][j];
                }
            }
        } else {
            for (int ky = along_y.tap; ky < p.y.taps; ky += p.y.up, from += p.pitch) {
                const T* pixel = from;
                for (int kx = 0; along_x.tap + kx < p.x.taps; kx += p.x.up, pixel += p.tile_lanes)
                    sums[0] += pixel->get() * taps[ky * p.x.taps + kx];
            }
        }
    }
};

template <class T, int UP, int DOWN, int TAPS, bool SEPARABLE, int LANES>
int launch_upfirdn(const UpfirdnCall& call) {
    using Body = UpfirdnBody<T, UP, DOWN, TAPS, SEPARABLE, LANES>;
    UpfirdnPlan p = make_plan(call, sizeof(T), sizeof(typename T::Math), Body::kKnown);
    return p.tiles ? launch_tiled<Body>(p, p.shared_bytes, call.stream) : -1;
}

template <class T, int TAPS, bool SEPARABLE, int LANES>
int with_factors(const UpfirdnCall& call) {
    bool is_square = call.up_x == call.up_y && call.down_x == call.down_y && call.taps_x == call.taps_y;
    if (is_square && call.taps_x == TAPS) {
        if (call.up_x == 1 && call.down_x == 1) return launch_upfirdn<T, 1, 1, TAPS, SEPARABLE, LANES>(call);
        if (call.up_x == 2 && call.down_x == 1) return launch_upfirdn<T, 2, 1, TAPS, SEPARABLE, LANES>(call);
        if (call.up_x == 1 && call.down_x == 2) return launch_upfirdn<T, 1, 2, TAPS, SEPARABLE, LANES>(call);
    }
    return launch_upfirdn<T, 1, 1, 1, SEPARABLE, 0>(call);
}

template <class T, int TAPS, bool SEPARABLE>
int with_lanes(const UpfirdnCall& call) {
    if constexpr (sizeof(typename T::Math) == 4) {
        if (!call.channels_last) return with_factors<T, TAPS, SEPARABLE, 1>(call);
        if constexpr (!SEPARABLE)  // separable filters come from the augmentation, whose images have few channels
            if (call.channels >= kTileLanes) return with_factors<T, TAPS, SEPARABLE, kTileLanes>(call);
    }
    return launch_upfirdn<T, 1, 1, 1, SEPARABLE, 0>(call);
}

// [1, 3, 3, 1] is a matrix of 4 x 4; the wavelets of the augmentation are 12 separable taps.
template <class T>
int with_filter(const UpfirdnCall& call) {
    return call.separable ? with_lanes<T, 12, true>(call) : with_lanes<T, 4, false>(call);
}

}  // namespace styleformer

EXPORT int64_t styleformer_upfirdn2d_call_size() { return sizeof(styleformer::UpfirdnCall); }

// Returns 0, a CUDA error number, or -1 for invalid arguments.
EXPORT int styleformer_upfirdn2d(const styleformer::UpfirdnCall* call) {
    using namespace styleformer;
    if (call->batch * call->channels == 0 || call->out_height <= 0 || call->out_width <= 0) return 0;
    switch (call->dtype) {
        case kFloat32: return with_filter<Float32>(*call);
        case kFloat16: return with_filter<Float16>(*call);
        case kBfloat16: return with_filter<Bfloat16>(*call);
        case kFloat64: return with_filter<Float64>(*call);
        default: return -1;
    }
}
