// The arithmetic of bias_act: nine activations, their first and second derivatives, gain and clamp.
#pragma once

#include <cmath>

#include "scalar.h"

namespace styleformer {

// The order of ACTIVATIONS in torch_utils/ops/bias_act.py. The first three are straight on either side of zero.
enum Act { kLinear, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish, kNumActs };

constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSoftplusStraight = 20;  // beyond it PyTorch takes softplus(v) for v

// Both forms for the host and the device: std:: names are not all there for a GPU.
HD float exp_of(float v) { return expf(v); }
HD double exp_of(double v) { return exp(v); }
HD float expm1_of(float v) { return expm1f(v); }
HD double expm1_of(double v) { return expm1(v); }
HD float log1p_of(float v) { return log1pf(v); }
HD double log1p_of(double v) { return log1p(v); }
HD float tanh_of(float v) { return tanhf(v); }
HD double tanh_of(double v) { return tanh(v); }
HD float abs_of(float v) { return fabsf(v); }
HD double abs_of(double v) { return fabs(v); }

template <class M>
HD M sigmoid(M v) {
    return M(1) / (M(1) + exp_of(-v));
}

// sigmoid(v) * sigmoid(-v) without a difference of nearly equal numbers
template <class M>
HD M sigmoid_slope(M v) {
    M e = exp_of(-abs_of(v));
    return e / ((M(1) + e) * (M(1) + e));
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

template <int ACT, class M>
HD M curved(M v) {
    if constexpr (ACT == kTanh) return tanh_of(v);
    if constexpr (ACT == kSigmoid) return sigmoid(v);
    if constexpr (ACT == kElu) return v > 0 ? v : expm1_of(v);
    if constexpr (ACT == kSelu) return v > 0 ? M(kSeluScale) * v : M(kSeluScale * kSeluAlpha) * expm1_of(v);
    if constexpr (ACT == kSoftplus) return v > M(kSoftplusStraight) ? v : log1p_of(exp_of(v));
    return v / (M(1) + exp_of(-v));
}

template <int ACT, class M>
HD M curved_first(M v) {
    if constexpr (ACT == kTanh) return M(4) * sigmoid_slope(v + v);
    if constexpr (ACT == kSigmoid) return sigmoid_slope(v);
    if constexpr (ACT == kElu) return v > 0 ? M(1) : exp_of(v);
    if constexpr (ACT == kSelu) return v > 0 ? M(kSeluScale) : M(kSeluScale * kSeluAlpha) * exp_of(v);
    if constexpr (ACT == kSoftplus) return v > M(kSoftplusStraight) ? M(1) : sigmoid(v);
    return sigmoid(v) * (M(1) + v * sigmoid(-v));
}

template <int ACT, class M>
HD M curved_second(M v) {
    if constexpr (ACT == kTanh) return M(-8) * tanh_of(v) * sigmoid_slope(v + v);
    if constexpr (ACT == kSigmoid) return -tanh_of(v / 2) * sigmoid_slope(v);
    if constexpr (ACT == kElu) return v < 0 ? exp_of(v) : M(0);
    if constexpr (ACT == kSelu) return v < 0 ? M(kSeluScale * kSeluAlpha) * exp_of(v) : M(0);
    if constexpr (ACT == kSoftplus) return v > M(kSoftplusStraight) ? M(0) : sigmoid_slope(v);
    return sigmoid_slope(v) * (M(2) - v * tanh_of(v / 2));
}

template <class M>
HD M clamped(M v, M limit) {  // a negative limit is none; not-a-number stays
    return limit < 0 ? v : v < -limit ? -limit : v > limit ? limit : v;
}

// The factor from the gradient of y to that of the input, read off y = clamp(gain * straight(v)): no input is stored.
template <class M>
HD M straight_factor(M y, M slope, M gain, M limit) {
    bool above = gain > 0 ? y > 0 : y < 0;
    bool passes = limit < 0 || abs_of(y) < limit;
    return passes ? (above ? gain : gain * slope) : M(0);
}

template <int ACT, class M>
HD M curved_factor(M v, M gain, M limit) {
    bool passes = limit < 0 || abs_of(gain * curved<ACT>(v)) <= limit;
    return passes ? gain * curved_first<ACT>(v) : M(0);
}

template <int ACT, class M>
HD M curved_second_factor(M v, M gain, M limit) {
    bool passes = limit < 0 || abs_of(gain * curved<ACT>(v)) <= limit;
    return passes ? gain * curved_second<ACT>(v) : M(0);
}

template <class M>
HD M scaled(M grad, M factor) {  // where nothing passes, an infinite gradient doesn't either
    return factor == 0 ? M(0) : grad * factor;
}

}  // namespace styleformer
