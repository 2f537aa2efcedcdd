// bias_act and its first and second derivative: y = clamp(gain * act(x + noise * strength + bias)).
// A tensor is [outer, channels, inner], dense in this order; the bias is indexed by channels, the noise by the others.

#include "activations.h"
#include "launch.h"

namespace styleformer {

// The arguments; the same structure as in torch_utils/ops/native/library.py.
struct BiasActCall {
    const void *input;      // x; for the first derivative of the straight activations the result y
    const void *grad;       // of y, for order 1 and 2
    const void *grad_grad;  // of the first derivative, for order 2
    const void *bias, *noise, *strength;  // null = none; strength: one number of type Math
    void *result;
    void *stream;
    double alpha, gain, clamp;  // a negative clamp = no clamp
    int64_t outer, channels, inner, noise_outer;  // noise is [noise_outer, inner]; its rows repeat over outer
    int32_t act, dtype, order;
};

struct BiasActParams {
    BiasActCall call;
    int64_t size;
    Divider by_inner, by_channels, by_noise;
};

// How the elements of a pack find bias and noise: one channel and neighbouring noise, neighbouring channels and one noise
// value, or packs of one element.
enum Access { kOneChannel, kManyChannels, kSingle };

template <class T, int ORDER, bool CURVED, Access ACCESS>
struct BiasActBody {
    using M = typename T::Math;
    static constexpr int kPack = ACCESS == kSingle ? 1 : kPackOf<T>;
    static constexpr int kUnroll = CURVED ? 1 : ACCESS == kSingle ? 4 : 2;  // packs in flight per thread
    static constexpr bool kShifted = ORDER == 0 || CURVED;                  // are bias and noise added to the input?
    using Values = Pack<T, kPack>;
    struct Inputs {
        Values input, grad, grad_grad;
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
                using One = BiasActBody<T, ORDER, CURVED, kSingle>;
                write_pack<T, 1>(p.call.result, at, One::compute(p, at, One::read(p, at)));
            }
        }
    }

    HD static Inputs read(const BiasActParams& p, int64_t at) {
        Inputs inputs;
        inputs.input = read_pack<T, kPack>(p.call.input, at);
        if constexpr (ORDER > 0) inputs.grad = read_pack<T, kPack>(p.call.grad, at);
        if constexpr (ORDER > 1) inputs.grad_grad = read_pack<T, kPack>(p.call.grad_grad, at);
        return inputs;
    }

    HD static Values compute(const BiasActParams& p, int64_t at, const Inputs& inputs) {
        M v[kPack];
        UNROLL for (int i = 0; i < kPack; i++) v[i] = inputs.input.item[i].get();
        if constexpr (kShifted)
            if (p.call.bias || p.call.noise) shift(p, at, v);
        if constexpr (!CURVED) return straight_values(p.call, v, inputs);
        switch (p.call.act) {
            case kTanh: return curved_values<kTanh>(p.call, v, inputs);
            case kSigmoid: return curved_values<kSigmoid>(p.call, v, inputs);
            case kElu: return curved_values<kElu>(p.call, v, inputs);
            case kSelu: return curved_values<kSelu>(p.call, v, inputs);
            case kSoftplus: return curved_values<kSoftplus>(p.call, v, inputs);
            default: return curved_values<kSwish>(p.call, v, inputs);
        }
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

    HD static Values straight_values(const BiasActCall& call, const M* v, const Inputs& inputs) {
        const M gain = M(call.gain), limit = stored<T>(M(call.clamp)), slope = slope_below(call.act, M(call.alpha));
        Values values;
        UNROLL for (int i = 0; i < kPack; i++) {
            if constexpr (ORDER == 0) values.item[i].set(clamped(gain * straight(v[i], slope), limit));
            if constexpr (ORDER == 1)
                values.item[i].set(scaled(inputs.grad.item[i].get(), straight_factor(v[i], slope, gain, limit)));
        }
        return values;
    }

    template <int ACT>
    HD static Values curved_values(const BiasActCall& call, const M* v, const Inputs& inputs) {
        const M gain = M(call.gain), limit = M(call.clamp);
        Values values;
        UNROLL for (int i = 0; i < kPack; i++) {
            if constexpr (ORDER == 0) values.item[i].set(curved_value<ACT>(v[i], gain, limit));
            if constexpr (ORDER == 1)
                values.item[i].set(scaled(inputs.grad.item[i].get(), curved_factor<ACT>(v[i], gain, limit)));
            if constexpr (ORDER == 2)
                values.item[i].set(scaled(inputs.grad.item[i].get(), inputs.grad_grad.item[i].get(),
                                          curved_second_factor<ACT>(v[i], gain, limit)));
        }
        return values;
    }
};

Access access_of(const BiasActCall& call, int pack, bool adds) {
    bool aligned = is_aligned(call.input) && is_aligned(call.grad) && is_aligned(call.grad_grad) &&
                   is_aligned(call.result);
    if (aligned && !(adds && (call.bias || call.noise))) return kOneChannel;
    if (aligned && call.inner % pack == 0 && is_aligned(call.noise)) return kOneChannel;
    if (aligned && call.inner == 1 && call.channels % pack == 0 && is_aligned(call.bias)) return kManyChannels;
    return kSingle;
}

template <class Body>
int launch_bias_act(const BiasActParams& p) {
    int64_t per_block = int64_t(kThreads) * Body::kUnroll * Body::kPack;
    return launch_elementwise<Body>(p, ceil_div(p.size, per_block), p.call.stream);
}

template <class T, int ORDER, bool CURVED>
int with_access(const BiasActParams& p) {
    using Single = BiasActBody<T, ORDER, CURVED, kSingle>;
    const Access access = access_of(p.call, kPackOf<T>, Single::kShifted);
    if (access == kOneChannel) return launch_bias_act<BiasActBody<T, ORDER, CURVED, kOneChannel>>(p);
    if constexpr (Single::kShifted)  // else all channels are alike
        if (access == kManyChannels) return launch_bias_act<BiasActBody<T, ORDER, CURVED, kManyChannels>>(p);
    return launch_bias_act<Single>(p);
}

template <class T>
int with_order(const BiasActParams& p) {
    bool is_curved = p.call.act > kLrelu;
    if (p.call.order == 0) return is_curved ? with_access<T, 0, true>(p) : with_access<T, 0, false>(p);
    if (p.call.order == 1) return is_curved ? with_access<T, 1, true>(p) : with_access<T, 1, false>(p);
    return is_curved ? with_access<T, 2, true>(p) : -1;  // 0 for the straight ones
}

}  // namespace styleformer

EXPORT int64_t styleformer_bias_act_call_size() { return sizeof(styleformer::BiasActCall); }

// Returns 0, a CUDA error number, or -1 for invalid arguments.
EXPORT int styleformer_bias_act(const styleformer::BiasActCall* call) {
    using namespace styleformer;
    if (call->act < 0 || call->act >= kNumActs || call->order < 0 || call->order > 2) return -1;
    const int64_t size = call->outer * call->channels * call->inner;
    if (size == 0) return 0;
    BiasActParams p{*call, size, Divider(call->inner), Divider(call->channels), Divider(call->noise ? call->noise_outer : 1)};
    switch (call->dtype) {
        case kFloat32: return with_order<Float32>(p);
        case kFloat16: return with_order<Float16>(p);
        case kBfloat16: return with_order<Bfloat16>(p);
        case kFloat64: return with_order<Float64>(p);
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
