// x = x / |x| in place, for the filters of many tensors in one launch: projection onto filters of length 1. Every block
// finds its tensor in a table among the kernel's arguments.
#pragma once

#include "cuda/base/affine.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

inline constexpr int kProjectThreads = 256, kProjectChunks = 4;
inline constexpr int kMostProjected = 96;  // tensors of a launch: arguments are at most 4 KB

template <typename T>
struct ProjectedTensor {
  T* data;  // (M, N)
  int64_t M, N;
  int threads;  // of a filter: up to a warp, or the block
  int end;      // the first block beyond this tensor's
  bool packed;  // data and N are whole numbers of packs
};

template <typename T>
struct FiltersProject {
  ProjectedTensor<T> tensors[kMostProjected];
};

// Reads a filter twice, the second time backwards: its last part is still in registers, the others in the cache.
template <typename T, bool PACKED>
__device__ void project(const ProjectedTensor<T>& t, int block) {
  using A = acc_t<T>;
  __shared__ A scratch[1][32];
  const int thread = threadIdx.x % t.threads, length = t.threads * kProjectChunks * kPack<T>;
  const int64_t row = int64_t(block) * (kProjectThreads / t.threads) + threadIdx.x / t.threads;
  T* filter = t.data + row * t.N;
  const int64_t N = row < t.M ? t.N : 0;
  const int last = (t.N - 1) / length;
  const auto part = [&](int i) { return Tile<T, PACKED>(N, int64_t(i) * length, length, thread, t.threads); };
  Pack<T> x[kProjectChunks];
  A sum[1] = {A(0)};
#pragma unroll 1
  for (int i = 0; i <= last; ++i) {
    part(i).load(filter + int64_t(i) * length, x);
    const auto add = [&](int, Pack<T>& pack) {
      const Wide<T> values = widen<T>(pack);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) sum[0] += values.v[k] * values.v[k];
    };
    for_chunks<PACKED>(add, x);
  }
  row_sum(sum, t.threads, scratch);
  const A scale = sum[0] > 0 ? A(1) / sqrt(sum[0]) : A(0);
#pragma unroll 1
  for (int i = last; i >= 0; --i) {
    const auto tile = part(i);
    T* at = filter + int64_t(i) * length;
    if (i < last) tile.load(at, x);
    const auto store = [&](int c, Pack<T>& pack) {
      const Wide<T> values = widen<T>(pack);
      tile.store(at, c, narrow<T>(Wide<T>::of([&](int k) { return values.v[k] * scale; })));
    };
    for_chunks<PACKED>(store, x);
  }
}

template <typename T>
__global__ void __launch_bounds__(kProjectThreads) filters_project_kernel(const FiltersProject<T> p) {
  int i = 0;  // binary search of the first tensor that ends beyond this block
  for (int step = 64; step > 0; step /= 2)
    if (i + step <= kMostProjected && p.tensors[i + step - 1].end <= int(blockIdx.x)) i += step;
  const int block = blockIdx.x - (i == 0 ? 0 : p.tensors[i - 1].end);
  if (p.tensors[i].packed)
    project<T, true>(p.tensors[i], block);
  else
    project<T, false>(p.tensors[i], block);
}

// ---- host ----

// tensor(i) gives data, M, N and packed of each of `count` tensors
template <typename T, typename TensorOf>
void filters_project(int count, const Device& device, TensorOf tensor) {
  for (int first = 0; first < count; first += kMostProjected) {
    FiltersProject<T> p;
    int end = 0;
    for (int i = 0; i < kMostProjected; ++i) {
      ProjectedTensor<T>& t = p.tensors[i] = {};
      if (first + i < count) {
        t = tensor(first + i);
        const int threads = row_block(ceil_div<int64_t>(t.N, kPack<T>), kProjectChunks, kProjectThreads).x;
        t.threads = threads > 32 ? kProjectThreads : threads;
        end += ceil_div<int64_t>(t.M, kProjectThreads / t.threads);
      }
      t.end = end;
    }
    launch(filters_project_kernel<T>, dim3(end), dim3(kProjectThreads), device, p);
  }
}

}  // namespace normkernels::cuda
