// What follows the statistics of every family: weight, bias and an activation.
#pragma once

#include "cuda/base/activations.cuh"
#include "cuda/base/tiles.cuh"

namespace normkernels::cuda {

// One parameter of N values: absent, of x's dtype, or float beside 16-bit x.
struct Parameter {
  const void* data;
  bool is_float;
};

template <typename T>
struct Affine {
  Parameter weight, bias;
  acc_t<T> offset, slope;
  Activation activation;
};

// fetch(pointer) for the parameter's dtype, widened; `absent` where there is none
template <typename T, typename Fetch>
__device__ Wide<T> load_parameter(Parameter p, acc_t<T> absent, Fetch fetch) {
  if (p.data == nullptr) return Wide<T>::of([=](int) { return absent; });
  if constexpr (sizeof(T) == 2)
    if (p.is_float) return fetch(static_cast<const float*>(p.data));
  return widen<T>(fetch(static_cast<const T*>(p.data)));
}

template <typename T, bool PACKED>
__device__ Wide<T> load_weight(const Affine<T>& affine, const Tile<T, PACKED>& tile, int64_t first, int c) {
  auto w = load_parameter<T>(affine.weight, acc_t<T>(1), [&](auto* p) { return tile.load(p + first, c); });
  if (affine.weight.data == nullptr) return w;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) w.v[k] += affine.offset;
  return w;
}

template <typename T, bool PACKED>
__device__ Wide<T> load_bias(const Affine<T>& affine, const Tile<T, PACKED>& tile, int64_t first, int c) {
  return load_parameter<T>(affine.bias, acc_t<T>(0), [&](auto* p) { return tile.load(p + first, c); });
}

// value n of a parameter; `absent` where there is none
template <typename T>
__device__ acc_t<T> load_value(Parameter p, int64_t n, acc_t<T> offset, acc_t<T> absent) {
  if (p.data == nullptr) return absent;
  if (p.is_float) return static_cast<const float*>(p.data)[n] + offset;
  return widen(static_cast<const T*>(p.data)[n]) + offset;
}

}  // namespace normkernels::cuda
