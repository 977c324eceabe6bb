// Packs of 16 bytes, and their values in the dtype of the arithmetic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace normkernels::cuda {

// Statistics and arithmetic are in float, or double for double.
template <typename T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// double is there to check gradients: one variant of each kernel is enough
template <typename T>
inline constexpr bool kFast = !std::is_same_v<T, double>;

template <typename T>
inline constexpr int kPack = 16 / sizeof(T);

// For __launch_bounds__: left alone, ptxas aims at 64 registers in some kernels and spills a few bytes; asked for this
// many blocks it takes the registers it needs. Zero asks for nothing.
template <bool ASK, int BLOCKS>
inline constexpr int kFewBlocks = ASK ? BLOCKS : 0;

// One value, widened exactly or rounded once.
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(float v) { return v; }
__device__ inline double widen(double v) { return v; }
template <typename T>
__device__ T narrow(acc_t<T> v) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(v);
  else if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(v);
  else
    return v;
}

// The two 16-bit values of a register, and the register of two values.
template <typename T>
__device__ float half_of(uint32_t word, int which) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __uint_as_float(which ? word & 0xffff0000u : word << 16);
  const __half2 pair = reinterpret_cast<const __half2&>(word);
  return which ? __high2float(pair) : __low2float(pair);
}

template <typename T>
__device__ uint32_t join(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// V values of U: one or two 128-bit accesses. 16-bit values stay joined in pairs, so that a pack is four registers.
template <typename U, int V>
struct alignas(16) Values {
  static constexpr int kJoined = sizeof(U) == 2 ? 2 : 1;
  using Word = std::conditional_t<sizeof(U) == 2, uint32_t, U>;
  Word v[V / kJoined];

  // the values of value(0), value(1), ...
  template <typename F>
  static __device__ Values of(F value) {
    Values values;
#pragma unroll
    for (int i = 0; i < V / kJoined; ++i) {
      if constexpr (kJoined == 1)
        values.v[i] = value(i);
      else
        values.v[i] = bits(value(2 * i)) | bits(value(2 * i + 1)) << 16;
    }
    return values;
  }
  __device__ U get(int k) const {
    if constexpr (kJoined == 1) {
      return v[k];
    } else {
      const uint16_t half = v[k / 2] >> (k % 2 * 16);
      return reinterpret_cast<const U&>(half);
    }
  }
  static __device__ uint32_t bits(U value) { return reinterpret_cast<const uint16_t&>(value); }
};

template <typename T>
using Pack = Values<T, kPack<T>>;
template <typename T>
using Wide = Values<acc_t<T>, kPack<T>>;

template <typename T>
__device__ Wide<T> widen(const Pack<T>& pack) {
  if constexpr (sizeof(T) != 2)
    return pack;
  else
    return Wide<T>::of([&](int k) { return half_of<T>(pack.v[k / 2], k % 2); });
}

// of a tensor in float beside 16-bit ones: nothing to do
template <typename T>
  requires(sizeof(T) == 2)
__device__ Wide<T> widen(const Wide<T>& wide) {
  return wide;
}

template <typename T>
__device__ Pack<T> narrow(const Wide<T>& wide) {
  if constexpr (sizeof(T) != 2)
    return wide;
  else {
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kPack<T> / 2; ++i) pack.v[i] = join<T>(wide.v[2 * i], wide.v[2 * i + 1]);
    return pack;
  }
}

}  // namespace normkernels::cuda
