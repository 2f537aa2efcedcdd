// Number types, 16-byte packs and exact division, the same for a GPU and for a host compiler.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#define HD inline __attribute__((always_inline))
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

#ifdef __CUDA_ARCH__
#define UNROLL _Pragma("unroll")
#define DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define UNROLL
#define DO_NOT_UNROLL
#endif

namespace styleformer {

enum Dtype { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2, kFloat64 = 3 };

HD float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

HD uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

HD float float_of_half(uint16_t half) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = (half >> 10) & 31, mantissa = half & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | (mantissa << 13));
    if (exponent) return float_of_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
    float value = float(mantissa) * float_of_bits(0x33800000u);  // subnormal: mantissa * 2^-24
    return sign ? -value : value;
#endif
}

HD uint16_t half_of_float(float value) {  // to nearest, ties to even
#ifdef __CUDA_ARCH__
    uint16_t half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return uint16_t(sign | 0x7e00);  // not a number
    if (bits >= 0x477ff000u) return uint16_t(sign | 0x7c00);  // 65520 and above: infinity
    if (bits >= 0x38800000u) return uint16_t(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1)) >> 13));
    // subnormal: adding 0.5 leaves exactly the ten bits wanted, rounded by the addition itself
    return uint16_t(sign | (bits_of_float(float_of_bits(bits) + 0.5f) - 0x3f000000u));
#endif
}

HD uint16_t bfloat16_of_float(float value) {  // to nearest, ties to even
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Types of numbers in memory; each is computed with as its type Math.
struct Float32 {
    using Math = float;
    float stored;
    HD Math get() const { return stored; }
    HD void set(Math value) { stored = value; }
};

struct Float64 {
    using Math = double;
    double stored;
    HD Math get() const { return stored; }
    HD void set(Math value) { stored = value; }
};

struct Float16 {
    using Math = float;
    uint16_t stored;
    HD Math get() const { return float_of_half(stored); }
    HD void set(Math value) { stored = half_of_float(value); }
};

struct Bfloat16 {
    using Math = float;
    uint16_t stored;
    HD Math get() const { return float_of_bits(uint32_t(stored) << 16); }
    HD void set(Math value) { stored = bfloat16_of_float(value); }
};

// The value rounded to type T.
template <class T>
HD typename T::Math stored(typename T::Math value) {
    T rounded;
    rounded.set(value);
    return rounded.get();
}

// N neighbours, read and written in one access; N = kPackOf<T> is 16 bytes.
template <class T>
constexpr int kPackOf = 16 / int(sizeof(T));

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T item[N];
};

template <class T, int N>
HD Pack<T, N> read_pack(const void* base, int64_t index) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(Pack<T, N>) == 16) {
        Pack<T, N> pack;
        uint4 words = __ldg(reinterpret_cast<const uint4*>(reinterpret_cast<const T*>(base) + index));
        memcpy(&pack, &words, 16);
        return pack;
    }
#endif
    return *reinterpret_cast<const Pack<T, N>*>(reinterpret_cast<const T*>(base) + index);
}

template <class T, int N>
HD void write_pack(void* base, int64_t index, const Pack<T, N>& pack) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(pack) == 16) {
        uint4 words;
        memcpy(&words, &pack, 16);
        *reinterpret_cast<uint4*>(reinterpret_cast<T*>(base) + index) = words;
        return;
    }
#endif
    *reinterpret_cast<Pack<T, N>*>(reinterpret_cast<T*>(base) + index) = pack;
}

// The same for shared memory, where the compiler sometimes splits the access into four.
template <class T, int N>
HD void write_shared_pack(T* base, int index, const Pack<T, N>& pack) {
#ifdef __CUDA_ARCH__
    if constexpr (sizeof(pack) == 16) {
        uint4 words;
        memcpy(&words, &pack, 16);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(unsigned(__cvta_generic_to_shared(base + index))),
                     "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
                     : "memory");
        return;
    }
#endif
    write_pack<T, N>(base, index, pack);
}

HD bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Quotients of 0 .. 2^63 - 1 by one divisor, by a multiplication: GPUs have no instruction that divides integers.
// With 2^(l-1) < divisor <= 2^l the factor is floor(2^(63+l) / divisor) + 1, which is exact for 63-bit numbers
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, theorem 4.2).
struct Divider {
    uint64_t divisor, factor, identity;  // identity: all bits if the divisor is 1, whose factor would not fit
    int shift;

    Divider() = default;
    explicit Divider(int64_t d) : divisor(uint64_t(d)), factor(0), identity(d == 1 ? ~uint64_t(0) : 0), shift(0) {
        if (d == 1) return;
        int bits = 64 - __builtin_clzll(divisor - 1);
        factor = uint64_t((static_cast<unsigned __int128>(1) << (63 + bits)) / divisor) + 1;
        shift = bits - 1;
    }

    HD int64_t quotient(int64_t n) const {
#ifdef __CUDA_ARCH__
        uint64_t high = __umul64hi(uint64_t(n), factor);
#else
        uint64_t high = uint64_t((static_cast<unsigned __int128>(uint64_t(n)) * factor) >> 64);
#endif
        return int64_t((high + (uint64_t(n) & identity)) >> shift);
    }

    HD int64_t remainder(int64_t n, int64_t quotient) const { return n - quotient * int64_t(divisor); }
};

}  // namespace styleformer
