// bias_act and its derivative: y = clamp(gain * act(x + noise * strength + bias)), for the activations that are linear on
// either side of zero. A tensor is [outer, channels, inner], dense in this order; the bias is indexed by channels, the noise
// by the others.

#include "launch.h"

namespace styleformer {

enum Act { kLinear, kRelu, kLrelu, kNumActs };  // the order of STRAIGHT in torch_utils/ops/native/bias_act_op.py

// The slope of linear (1), relu (0) and lrelu (alpha) below zero.
template <class M>
HD M slope_below(int act, M alpha) {
    return act == kLinear ? M(1) : act == kRelu ? M(0) : alpha;
}

template <class M>
HD M activated(M v, M slope) {  // not v * slope throughout: relu of minus infinity is 0
    return v > 0 ? v : slope > 0 ? v * slope : v < 0 ? M(0) : v;
}

template <class M>
HD M clamped(M v, M limit) {  // a negative limit = no limit; NaN stays NaN
    return limit < 0 ? v : v < -limit ? -limit : v > limit ? limit : v;
}

// The derivative of y = clamp(gain * activated(v)), from y itself, so the input need not be stored.
// The limit has to be rounded to the dtype of y, or a saturated y may lie below it.
template <class M>
HD M factor(M y, M slope, M gain, M limit) {
    bool above = gain > 0 ? y > 0 : y < 0;
    bool passes = limit < 0 || (y < 0 ? -y : y) < limit;
    return passes ? (above ? gain : gain * slope) : M(0);
}

template <class M>
HD M scaled(M grad, M factor) {  // a factor of 0 also stops an infinite gradient
    return factor == 0 ? M(0) : grad * factor;
}

// The arguments; the same structure as in torch_utils/ops/native/library.py.
struct BiasActCall {
    const void *input;  // x; for the derivative the result y
    const void *grad;   // of y, for the derivative; null = compute the value
    const void *bias, *noise, *strength;  // null = none; strength: one number of type Math
    void *result;
    void *stream;
    double alpha, gain, clamp;  // a negative clamp = no clamp
    int64_t outer, channels, inner, noise_outer;  // noise is [noise_outer, inner]; its rows repeat over outer
    int32_t act, dtype;
};

struct BiasActParams {
    BiasActCall call;
    int64_t size;
    Divider by_inner, by_channels, by_noise;
};

// How the elements of a pack find bias and noise: one channel and neighbouring noise, neighbouring channels and one noise
// value, or packs of one element.
enum Access { kOneChannel, kManyChannels, kSingle };

template <class T, bool IS_GRAD, Access ACCESS>
struct BiasActBody {
    using M = typename T::Math;
    static constexpr int kPack = ACCESS == kSingle ? 1 : kPackOf<T>;
    static constexpr int kUnroll = ACCESS == kSingle ? 4 : 2;  // packs in flight per thread
    using Values = Pack<T, kPack>;
    struct Inputs {
        Values input, grad;
    };

    HD static void run(const BiasActParams& p, Thread thread) {
        const int64_t packs = p.size / kPack, round = thread.blocks * thread.count * kUnroll;
        int64_t first = thread.block * thread.count * kUnroll + thread.index;
        for (int64_t base = first; base < packs; base += round) {
            Inputs inputs[kUnroll];
            UNROLL for (int u = 0; u < kUnroll; u++) {
                int64_t pack = base + u * thread.count;
                if (pack < packs) inputs[u] = read(p, pack * kPack);
            }
            UNROLL for (int u = 0; u < kUnroll; u++) {
                int64_t pack = base + u * thread.count;
                if (pack < packs) write_pack<T, kPack>(p.call.result, pack * kPack, compute(p, pack * kPack, inputs[u]));
            }
        }
        if constexpr (kPack > 1) {  // a remainder exists only if nothing is added
            int64_t at = packs * kPack + thread.block * thread.count + thread.index;
            if (at < p.size) {
                using One = BiasActBody<T, IS_GRAD, kSingle>;
                write_pack<T, 1>(p.call.result, at, One::compute(p, at, One::read(p, at)));
            }
        }
    }

    HD static Inputs read(const BiasActParams& p, int64_t at) {
        Inputs inputs;
        inputs.input = read_pack<T, kPack>(p.call.input, at);
        if constexpr (IS_GRAD) inputs.grad = read_pack<T, kPack>(p.call.grad, at);
        return inputs;
    }

    HD static Values compute(const BiasActParams& p, int64_t at, const Inputs& inputs) {
        M v[kPack];
        UNROLL for (int i = 0; i < kPack; i++) v[i] = inputs.input.item[i].get();
        if constexpr (!IS_GRAD)
            if (p.call.bias || p.call.noise) shift(p, at, v);
        const M gain = M(p.call.gain), limit = stored<T>(M(p.call.clamp)), slope = slope_below(p.call.act, M(p.call.alpha));
        Values values;
        UNROLL for (int i = 0; i < kPack; i++) {
            if constexpr (IS_GRAD) values.item[i].set(scaled(inputs.grad.item[i].get(), factor(v[i], slope, gain, limit)));
            else values.item[i].set(clamped(gain * activated(v[i], slope), limit));
        }
        return values;
    }

    HD static void shift(const BiasActParams& p, int64_t at, M* v) {
        const BiasActCall& call = p.call;
        int64_t row = p.by_inner.quotient(at), outer = p.by_channels.quotient(row);
        if (call.noise) {
            constexpr int kNoise = ACCESS == kManyChannels ? 1 : kPack;
            int64_t noise_row = p.by_noise.remainder(outer, p.by_noise.quotient(outer));
            int64_t place = noise_row * call.inner + p.by_inner.remainder(at, row);
            Pack<T, kNoise> noise = read_pack<T, kNoise>(call.noise, place);
            M strength = *static_cast<const M*>(call.strength);
            UNROLL for (int i = 0; i < kPack; i++) v[i] += noise.item[kNoise == 1 ? 0 : i].get() * strength;
        }
        if (call.bias) {
            constexpr int kBias = ACCESS == kManyChannels ? kPack : 1;
            Pack<T, kBias> bias = read_pack<T, kBias>(call.bias, p.by_channels.remainder(row, outer));
            UNROLL for (int i = 0; i < kPack; i++) v[i] += bias.item[kBias == 1 ? 0 : i].get();
        }
    }
};

Access access_of(const BiasActCall& call, int pack) {
    bool aligned = is_aligned(call.input) && is_aligned(call.grad) && is_aligned(call.result);
    if (aligned && !call.bias && !call.noise) return kOneChannel;
    if (aligned && call.inner % pack == 0 && is_aligned(call.noise)) return kOneChannel;
    if (aligned && call.inner == 1 && call.channels % pack == 0 && is_aligned(call.bias)) return kManyChannels;
    return kSingle;
}

template <class T, bool IS_GRAD, Access ACCESS>
int launch_bias_act(const BiasActParams& p) {
    using Body = BiasActBody<T, IS_GRAD, ACCESS>;
    int64_t per_block = int64_t(kThreads) * Body::kUnroll * Body::kPack;
    return launch_elementwise<Body>(p, ceil_div(p.size, per_block), p.call.stream);
}

template <class T>
int with_access(const BiasActParams& p) {
    const Access access = access_of(p.call, kPackOf<T>);
    if (p.call.grad)  // nothing is added, so all channels are alike
        return access == kOneChannel ? launch_bias_act<T, true, kOneChannel>(p) : launch_bias_act<T, true, kSingle>(p);
    if (access == kOneChannel) return launch_bias_act<T, false, kOneChannel>(p);
    if (access == kManyChannels) return launch_bias_act<T, false, kManyChannels>(p);
    return launch_bias_act<T, false, kSingle>(p);
}

}  // namespace styleformer

EXPORT int64_t styleformer_bias_act_call_size() { return sizeof(styleformer::BiasActCall); }

// Returns 0, a CUDA error number, or -1 for invalid arguments.
EXPORT int styleformer_bias_act(const styleformer::BiasActCall* call) {
    using namespace styleformer;
    if (call->act < 0 || call->act >= kNumActs) return -1;
    const int64_t size = call->outer * call->channels * call->inner;
    if (size == 0) return 0;
    BiasActParams p{*call, size, Divider(call->inner), Divider(call->channels), Divider(call->noise ? call->noise_outer : 1)};
    switch (call->dtype) {
        case kFloat32: return with_access<Float32>(p);
        case kFloat16: return with_access<Float16>(p);
        case kBfloat16: return with_access<Bfloat16>(p);
        case kFloat64: return with_access<Float64>(p);
        default: return -1;
    }
}

// The name of a kernel of the library, counted from 0, and how often it was launched; null beyond the last one.
EXPORT const char* styleformer_kernel(int index, int64_t* launches) {
    const styleformer::Kernel* kernel = styleformer::Kernel::list();
    while (kernel && index-- > 0) kernel = kernel->next;
    if (!kernel) return nullptr;
    *launches = kernel->launches.load(std::memory_order_relaxed);
    return kernel->name;
}
