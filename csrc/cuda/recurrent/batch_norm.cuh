// Batch norm inside a recurrent cell: a block has neighbouring hidden units, all their gates, over all rows of a step.
#pragma once

#include "cuda/recurrent/cells.cuh"

namespace normkernels::cuda {

inline constexpr int kCellUnits = 16, kCellRows = 16;  // threads of a block: units by rows

template <typename T, int GATES>
struct BatchStepForward : StepForward<T> {
  acc_t<T>*mean, *var;  // (T, gates H), population statistics: measured in training, else read
  bool training;
};

template <typename T, int GATES>
struct BatchStepBackward : StepBackward<T> {
  const acc_t<T>*mean, *var;
  bool training;  // P is 1: a block adds up the sums of its units alone
};

// Of MOST sums by unit, for each warp.
template <typename A, int MOST>
using BatchScratch = A[kCellUnits * kCellRows / 32][MOST][kCellUnits];

// A thread's unit, and its rows: threadIdx.y, threadIdx.y + kCellRows, ...
template <typename A, int MOST>
struct BatchUnit {
  int64_t unit, rows;              // no rows where there is no such unit
  int64_t count;                   // rows of the step
  BatchScratch<A, MOST>* scratch;  // two, by turns, so that one barrier each is enough
  int buffer = 0;

  __device__ BatchUnit(int64_t hidden, int64_t rows, BatchScratch<A, MOST>* scratch)
      : unit(int64_t(blockIdx.x) * kCellUnits + threadIdx.x), rows(rows), count(rows), scratch(scratch) {
    if (unit >= hidden) unit = 0, this->rows = 0;
  }
  // of the unit, for what is done once
  __device__ bool writes() const { return rows > 0 && threadIdx.y == 0; }

  template <typename Body>
  __device__ void each_row(Body body) const {
    for (int64_t r = threadIdx.y; r < rows; r += kCellRows) body(r);
  }

  // v <- its sum over the unit's threads, in one order
  template <int K>
  __device__ void sum(A (&v)[K]) {
    auto* part = scratch[buffer];
    buffer ^= 1;
    const int warp = threadIdx.y * kCellUnits / 32;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      v[k] += __shfl_xor_sync(0xffffffffu, v[k], kCellUnits);
      if (threadIdx.y % 2 == 0) part[warp][k][threadIdx.x] = v[k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; ++k) {
      v[k] = part[0][k][threadIdx.x];
#pragma unroll
      for (int w = 1; w < kCellUnits * kCellRows / 32; ++w) v[k] += part[w][k][threadIdx.x];
    }
  }
  template <int K>
  __device__ void average(A (&v)[K]) {
    sum(v);
#pragma unroll
    for (int k = 0; k < K; ++k) v[k] /= A(count);
  }
};

// A unit's statistics in training, by the gates of a unit: load(r, g) gives values, the same ones both times.
template <typename A, int MOST, int GATES, typename Load>
__device__ void measure(BatchUnit<A, MOST>& batch, A (&mean)[GATES], A (&var)[GATES], Load load) {
  batch.each_row([&](int64_t r) { for_gates<GATES>([&](auto g) { mean[g] += load(r, g); }); });
  batch.average(mean);
  batch.each_row([&](int64_t r) {
    for_gates<GATES>([&](auto g) {
      const A centred = load(r, g) - mean[g];
      var[g] += centred * centred;
    });
  });
  batch.average(var);
}

// ---- host ----

template <typename Params>
void launch_batch(void (*kernel)(Params), const Params& p, const Device& device) {
  const int64_t blocks = ceil_div<int64_t>(p.hidden, kCellUnits);
  launch(kernel, dim3(blocks), dim3(kCellUnits, kCellRows), device, p);
}

}  // namespace normkernels::cuda
