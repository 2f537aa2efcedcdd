// Numbers of about twice the digits, as sums of two: a product of many factors is then rounded once, not once per factor.
// (T. J. Dekker, "A floating-point technique for extending the available precision", 1971.)
#pragma once

#include <cmath>

#include "scalar.h"

namespace styleformer {

template <class M>
struct Wide {
    M high, low;  // high is the sum, rounded to M
};

HD float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
HD double fma_of(double a, double b, double c) { return fma(a, b, c); }

// A product that the compiler cannot merge with a following addition.
#ifdef __CUDA_ARCH__
HD float times(float a, float b) { return __fmul_rn(a, b); }
HD double times(double a, double b) { return __dmul_rn(a, b); }
#else
HD float times(float a, float b) { return a * b; }
HD double times(double a, double b) { return a * b; }
#endif

template <class M>
HD Wide<M> wide(double high, double low) {
    M rounded = M(high);
    return {rounded, M(high - double(rounded) + low)};
}

template <class M>
HD Wide<M> exactly(M value) {
    return {value, M(0)};
}

// The sum of a number and a much smaller one. Infinities and NaN stay unchanged.
template <class M>
HD Wide<M> normalized(M high, M low) {
    M sum = high + low;
    return sum - sum == 0 ? Wide<M>{sum, low - (sum - high)} : exactly(high);
}

template <class M>
HD Wide<M> sum(M a, M b) {
    M high = a + b, of_b = high - a;
    return normalized(high, (a - (high - of_b)) + (b - of_b));
}

template <class M>
HD Wide<M> sum(Wide<M> a, M b) {
    Wide<M> high = sum(a.high, b);
    return normalized(high.high, high.low + a.low);
}

template <class M>
HD Wide<M> product(Wide<M> a, M b) {
    M high = times(a.high, b);
    return normalized(high, fma_of(a.high, b, -high) + a.low * b);
}

template <class M>
HD Wide<M> product(Wide<M> a, Wide<M> b) {
    M high = times(a.high, b.high);
    return normalized(high, fma_of(a.high, b.high, -high) + (a.high * b.low + a.low * b.high));
}

template <class M>
HD Wide<M> quotient(Wide<M> a, Wide<M> b) {
    M high = a.high / b.high;
    return normalized(high, (fma_of(-high, b.high, a.high) + (a.low - high * b.low)) / b.high);
}

}  // namespace styleformer
