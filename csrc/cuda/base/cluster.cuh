// Blocks that run side by side and write to each other's shared memory: the clusters of devices of capability 9.0 on.
#pragma once

#include <map>
#include <mutex>
#include <tuple>

#include "cuda/base/shared_memory.cuh"

namespace normkernels::cuda {

inline constexpr unsigned kMostBlocks = 8;  // of a cluster on any device that has them

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline constexpr bool kClusters = true;  // of the code at hand
#else
inline constexpr bool kClusters = false;
#endif

// MANY: this block's cluster. Else a block alone, of which nothing costs an instruction.
template <bool MANY>
struct Cluster {
  static __device__ unsigned rank() {
    unsigned value = 0;
    if constexpr (MANY && kClusters) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(value));
    return value;
  }
  static __device__ unsigned blocks() {
    unsigned value = 1;
    if constexpr (MANY && kClusters) asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(value));
    return value;
  }
  // That this block has begun: the others may write to it from here on.
  static __device__ void begin() {
    if constexpr (MANY && kClusters) asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  }
  // Until all have, once in a kernel.
  static __device__ void begun() {
    if constexpr (MANY && kClusters) asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
  }
  // of[r] <- v of block r, in every block, once all have begun. v is the same in all threads of a block. Each writes to
  // the others and reads what lies with it, so none needs to wait before it ends. Successive calls need different `of`.
  template <int K>
  static __device__ void share(const float (&v)[K], float (&of)[kMostBlocks][K]) {
    if constexpr (MANY && kClusters) {
      if (threadIdx.x < blocks()) {
        const uint32_t here = __cvta_generic_to_shared(&of[rank()]);
        uint32_t there;
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(threadIdx.x));
#pragma unroll
        for (int k = 0; k < K; ++k)
          asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there + k * uint32_t(sizeof(float))), "f"(v[k])
                       : "memory");
      }
      asm volatile("barrier.cluster.arrive.release;" ::: "memory");
      asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
    }
  }
};

// ---- host ----

// The smallest cluster of so many blocks, or the largest that there is.
inline unsigned cluster_of(int64_t needed) {
  unsigned blocks = 1;
  while (blocks < needed && blocks < kMostBlocks) blocks *= 2;
  return blocks;
}

// A launch of which so many neighbouring blocks are a cluster each.
struct ClusterLaunch {
  cudaLaunchAttribute cluster{};
  cudaLaunchConfig_t config{};

  ClusterLaunch(unsigned blocks, dim3 grid, dim3 block, int shared) {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {blocks, 1, 1};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared;
    config.attrs = &cluster, config.numAttrs = 1;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;  // config points to cluster
};

// How many clusters of so many blocks of this kernel the current device runs at once. None where its code was compiled
// without them, nor where so many multiprocessors do not lie beside each other, as in a slice of a GPU. Asked once; it
// may be launched with so much shared memory then.
template <typename Params>
int resident_clusters(void (*kernel)(Params), unsigned blocks, int threads, int shared) {
  if (shared > kPlainShared) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  static std::mutex mutex;
  static std::map<std::tuple<int, void (*)(Params), unsigned, int, int>, int> known;
  int device = 0;
  cudaGetDevice(&device);
  const std::lock_guard lock(mutex);
  const auto [at, first] = known.try_emplace({device, kernel, blocks, threads, shared}, 0);
  cudaFuncAttributes code{};
  if (first && cudaFuncGetAttributes(&code, kernel) == cudaSuccess && code.ptxVersion >= 90) {
    const ClusterLaunch launch(blocks, blocks, threads, shared);
    if (cudaOccupancyMaxActiveClusters(&at->second, kernel, &launch.config) != cudaSuccess) {
      cudaGetLastError();  // which is no error of the launches that follow
      at->second = 0;
    }
  }
  return at->second;
}

template <typename Params>
void launch_clusters(void (*kernel)(Params), unsigned blocks, dim3 grid, dim3 block, int shared, const Device& device,
                     Params params) {
  ClusterLaunch launch(blocks, grid, block, shared);
  launch.config.stream = device.stream;
  void* arguments[] = {&params};
  cudaLaunchKernelExC(&launch.config, reinterpret_cast<const void*>(kernel), arguments);
}

}  // namespace normkernels::cuda
