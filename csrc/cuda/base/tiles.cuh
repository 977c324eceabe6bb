// What every kernel shares: packs of 16 bytes, the columns a thread owns, the affine, reductions over the threads of a
// row.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "cuda/base/activations.cuh"

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

// Runs body(c, chunk of each array) for every chunk. A short body is unrolled; a long one (activations, scalar
// accesses) is one loop body for all chunks, and the arrays turn so that the chunk's registers are the first.
template <bool UNROLL, int C, typename Body, typename... E>
__device__ void for_chunks(Body body, E (&... arrays)[C]) {
  if constexpr (UNROLL) {
#pragma unroll
    for (int c = 0; c < C; ++c) body(c, arrays[c]...);
  } else {
#pragma unroll 1
    for (int c = 0; c < C; ++c) {
      body(c, arrays[0]...);
      const auto turn = [](auto& array) {
        const auto first = array[0];
#pragma unroll
        for (int i = 0; i + 1 < C; ++i) array[i] = array[i + 1];
        array[C - 1] = first;
      };
      (turn(arrays), ...);
    }
  }
}

// The part of a row that a group of threads holds: chunk c is one pack per thread. PACKED: every pack is aligned,
// 128-bit accesses. Else scalar ones, and where N is not a whole number of packs neighbouring threads own neighbouring
// columns.
template <typename T, bool PACKED>
struct Tile {
  static constexpr int V = kPack<T>;
  int columns;  // how many exist
  int thread, threads;
  int between, within;  // columns from a thread to the next, and from a value to the next

  // This thread's part of a row of N columns: at most `most` of them, from `first` on.
  __device__ Tile(int64_t N, int64_t first, int64_t most = INT32_MAX) : Tile(N, first, most, threadIdx.x, blockDim.x) {}
  __device__ Tile(int64_t N, int64_t first, int64_t most, int thread, int threads)
      : columns(N - first < most ? N - first : most),
        thread(thread),
        threads(threads),
        between(PACKED || N % V == 0 ? V : 1),
        within(PACKED || N % V == 0 ? 1 : threads) {}

  __device__ int column(int c, int k) const {
    if constexpr (PACKED) return (c * threads + thread) * V + k;
    return c * threads * V + thread * between + k * within;
  }
  __device__ bool holds(int c, int k) const { return column(c, PACKED ? 0 : k) < columns; }

  template <typename U>
  __device__ Values<U, V> load(const U* row, int c) const {
    Values<U, V> pack;
    if constexpr (PACKED) {
      uint4* quads = reinterpret_cast<uint4*>(&pack);
#pragma unroll
      for (int q = 0; q < int(sizeof(pack) / 16); ++q) {
        quads[q] = make_uint4(0, 0, 0, 0);
        if (holds(c, 0)) quads[q] = reinterpret_cast<const uint4*>(row + column(c, 0))[q];
      }
      return pack;
    }
    return Values<U, V>::of([&](int k) { return holds(c, k) ? row[column(c, k)] : narrow<U>(0); });
  }

  template <typename U>
  __device__ void store(U* row, int c, const Values<U, V>& pack) const {
    if constexpr (PACKED) {
      const uint4* quads = reinterpret_cast<const uint4*>(&pack);
#pragma unroll
      for (int q = 0; q < int(sizeof(pack) / 16); ++q)
        if (holds(c, 0)) reinterpret_cast<uint4*>(row + column(c, 0))[q] = quads[q];
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (holds(c, k)) row[column(c, k)] = pack.get(k);
    }
  }

  // C chunks with nothing between their loads, so that all of them are in flight together
  template <typename U, int C>
  __device__ void load(const U* row, Values<U, V> (&packs)[C]) const {
    for_chunks<PACKED>([&](int c, Values<U, V>& pack) { pack = load(row, c); }, packs);
  }
};

// Makes the compiler unpack 16-bit values again from here on: a pack of floats takes twice the registers.
template <typename T, int C>
__device__ void keep_packed(Pack<T> (&packs)[C]) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int i = 0; i < kPack<T> / 2; ++i) asm volatile("" : "+r"(packs[c].v[i]));
  }
}

template <typename T, int C>
  requires(sizeof(T) == 2)
__device__ void keep_packed(Wide<T> (&)[C]) {}

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

// v <- its sum over the threads of a row, in an order that only their number sets. Up to a warp: `threads` neighbouring
// lanes; more: the block. Successive calls need different scratch, so that one barrier each is enough.
template <int K, typename A>
__device__ void row_sum(A (&v)[K], int threads, A (*scratch)[32]) {
  const auto butterfly = [&](int width) {
#pragma unroll
    for (int k = 0; k < K; ++k)
      for (int step = width / 2; step > 0; step /= 2) v[k] += __shfl_xor_sync(0xffffffffu, v[k], step);
  };
  butterfly(threads < 32 ? threads : 32);
  if (threads <= 32) return;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0)
    for (int k = 0; k < K; ++k) scratch[k][warp] = v[k];
  __syncthreads();
  for (int k = 0; k < K; ++k) v[k] = lane < threads / 32 ? scratch[k][lane] : A(0);
  butterfly(32);
}

// ---- host ----

struct Device {
  int multiprocessors, l2_bytes;
  cudaStream_t stream;
};

template <typename Params>
void launch(void (*kernel)(Params), dim3 grid, dim3 block, const Device& device, Params params) {
  void* arguments[] = {&params};
  cudaLaunchKernel(kernel, grid, block, arguments, 0, device.stream);
}

// How many blocks of a persistent kernel fill the device.
template <typename Params>
int resident_blocks(void (*kernel)(Params), int threads, const Device& device) {
  int blocks = 1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0);
  return device.multiprocessors * (blocks > 1 ? blocks : 1);
}

template <typename I>
constexpr I ceil_div(I a, I b) {
  return (a + b - 1) / b;
}

}  // namespace normkernels::cuda
