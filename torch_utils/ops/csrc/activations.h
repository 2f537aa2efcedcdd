// The arithmetic of bias_act: nine activations with first and second derivatives, gain and clamp.
#pragma once

#include <cmath>

#include "scalar.h"
#include "wide.h"

namespace styleformer {

// The order of ACTIVATIONS in torch_utils/ops/bias_act_reference.py. The first three are linear on either side of zero.
enum Act { kLinear, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish, kNumActs };

constexpr double kSoftplusStraight = 20;  // above it PyTorch computes softplus(v) as v

// For host and device, as GPUs lack some functions of std::.
HD float exp_of(float v) { return expf(v); }
HD double exp_of(double v) { return exp(v); }
HD float expm1_of(float v) { return expm1f(v); }
HD double expm1_of(double v) { return expm1(v); }
HD float log1p_of(float v) { return log1pf(v); }
HD double log1p_of(double v) { return log1p(v); }
HD float abs_of(float v) { return fabsf(v); }
HD double abs_of(double v) { return fabs(v); }

// The constants of selu, 1.05070098735548049342 and that times 1.67326324235437728482, in twice the digits of a double.
template <class M>
HD Wide<M> selu_above() {
    return wide<M>(1.0507009873554805, 3.9874847667154144e-17);
}

template <class M>
HD Wide<M> selu_below() {
    return wide<M>(1.7580993408473768, 1.41535193800845e-17);
}

// The slope of linear (1), relu (0) and lrelu (alpha) below zero.
template <class M>
HD M slope_below(int act, M alpha) {
    return act == kLinear ? M(1) : act == kRelu ? M(0) : alpha;
}

template <class M>
HD M straight(M v, M slope) {  // not v * slope throughout: relu of minus infinity is 0
    return v > 0 ? v : slope > 0 ? v * slope : v < 0 ? M(0) : v;
}

// 1 / (1 + exp(-v)), from e = exp(-|v|), which neither overflows nor loses digits.
template <class M>
HD Wide<M> sigmoid(M v) {
    M e = exp_of(-abs_of(v));
    return quotient(exactly(v < 0 ? e : M(1)), sum(M(1), e));
}

// sigmoid(v) * sigmoid(-v), the slope of sigmoid
template <class M>
HD Wide<M> sigmoid_slope(M v) {
    M e = exp_of(-abs_of(v));
    return quotient(quotient(exactly(e), sum(M(1), e)), sum(M(1), e));
}

template <class M>
HD Wide<M> tanh_of(M v) {
    M twice = M(-2) * abs_of(v), sign = v < 0 ? M(-1) : M(1);
    if (twice > M(-1)) {  // (1 - e) / (1 + e) with e = exp(-2|v|), by e - 1 where e is close to 1
        M below = expm1_of(twice);
        return quotient(exactly(-sign * below), sum(M(2), below));
    }
    M e = exp_of(twice);
    return product(quotient(sum(M(1), -e), sum(M(1), e)), sign);
}

template <int ACT, class M>
HD Wide<M> curved(M v) {
    if constexpr (ACT == kTanh) return tanh_of(v);
    if constexpr (ACT == kSigmoid) return sigmoid(v);
    if constexpr (ACT == kElu) return exactly(v > 0 ? v : expm1_of(v));
    if constexpr (ACT == kSelu) return v > 0 ? product(selu_above<M>(), v) : product(selu_below<M>(), expm1_of(v));
    if constexpr (ACT == kSoftplus) {
        M tail = log1p_of(exp_of(-abs_of(v)));
        return v > M(kSoftplusStraight) ? exactly(v) : v > 0 ? sum(exactly(v), tail) : exactly(tail);
    }
    return product(sigmoid(v), v);
}

template <int ACT, class M>
HD Wide<M> curved_first(M v) {
    if constexpr (ACT == kTanh) return product(sigmoid_slope(v + v), M(4));
    if constexpr (ACT == kSigmoid) return sigmoid_slope(v);
    if constexpr (ACT == kElu) return exactly(v > 0 ? M(1) : exp_of(v));
    if constexpr (ACT == kSelu) return v > 0 ? selu_above<M>() : product(selu_below<M>(), exp_of(v));
    if constexpr (ACT == kSoftplus) return v > M(kSoftplusStraight) ? exactly(M(1)) : sigmoid(v);
    return product(sigmoid(v), sum(product(sigmoid(-v), v), M(1)));
}

template <int ACT, class M>
HD Wide<M> curved_second(M v) {
    if constexpr (ACT == kTanh) return product(product(tanh_of(v), M(-8)), sigmoid_slope(v + v));
    if constexpr (ACT == kSigmoid) return product(product(tanh_of(v / 2), M(-1)), sigmoid_slope(v));
    if constexpr (ACT == kElu) return exactly(v < 0 ? exp_of(v) : M(0));
    if constexpr (ACT == kSelu) return v < 0 ? product(selu_below<M>(), exp_of(v)) : exactly(M(0));
    if constexpr (ACT == kSoftplus) return v > M(kSoftplusStraight) ? exactly(M(0)) : sigmoid_slope(v);
    return product(sigmoid_slope(v), sum(product(tanh_of(v / 2), -v), M(2)));
}

template <class M>
HD M clamped(M v, M limit) {  // a negative limit = no limit; NaN stays NaN
    return limit < 0 ? v : v < -limit ? -limit : v > limit ? limit : v;
}

// The derivative of y = clamp(gain * straight(v)), from y itself, so the input need not be stored.
// The limit has to be rounded to the dtype of y, or a saturated y may lie below it.
template <class M>
HD M straight_factor(M y, M slope, M gain, M limit) {
    bool above = gain > 0 ? y > 0 : y < 0;
    bool passes = limit < 0 || abs_of(y) < limit;
    return passes ? (above ? gain : gain * slope) : M(0);
}

template <int ACT, class M>
HD M curved_value(M v, M gain, M limit) {
    return clamped(product(curved<ACT>(v), gain).high, limit);
}

template <int ACT, class M>
HD bool curved_passes(M v, M gain, M limit) {
    return limit < 0 || abs_of(product(curved<ACT>(v), gain).high) <= limit;
}

template <int ACT, class M>
HD Wide<M> curved_factor(M v, M gain, M limit) {
    return curved_passes<ACT>(v, gain, limit) ? product(curved_first<ACT>(v), gain) : exactly(M(0));
}

template <int ACT, class M>
HD Wide<M> curved_second_factor(M v, M gain, M limit) {
    return curved_passes<ACT>(v, gain, limit) ? product(curved_second<ACT>(v), gain) : exactly(M(0));
}

template <class M>
HD M scaled(M grad, M factor) {  // a factor of 0 also stops an infinite gradient
    return factor == 0 ? M(0) : grad * factor;
}

template <class M>
HD M scaled(M grad, Wide<M> factor) {
    return factor.high == 0 ? M(0) : product(factor, grad).high;
}

template <class M>
HD M scaled(M grad, M grad_grad, Wide<M> factor) {
    return factor.high == 0 ? M(0) : product(product(factor, grad), grad_grad).high;
}

}  // namespace styleformer
