// Layer norm inside a recurrent cell: a row of a step per block, which reads it from the cache in every pass. A thread
// has the same units of all gates.
#pragma once

#include "cuda/recurrent/cells.cuh"

namespace normkernels::cuda {

inline constexpr int kCellThreads = 256;
inline constexpr int kCellLines = 64;  // most lines of partial sums, and then blocks of a step

// Neighbouring gates that are normalised together.
template <typename A, int GATES>
struct Groups {
  int count, begins;  // bit g of begins: gate g begins a group
  A values[GATES];    // in the group of gate g

  __device__ bool begin(int g) const { return begins >> g & 1; }

  // sums of the gates -> means of their groups
  __device__ void mean(A* sums) const {
#pragma unroll
    for (int g = 1; g < GATES; ++g)
      if (!begin(g)) sums[g] += sums[g - 1];
#pragma unroll
    for (int g = GATES - 2; g >= 0; --g)
      if (!begin(g + 1)) sums[g] = sums[g + 1];
#pragma unroll
    for (int g = 0; g < GATES; ++g) sums[g] /= values[g];
  }
  // a row of the table (rows, count) of statistics
  __device__ void load(const A* table, int64_t row, A (&v)[GATES]) const {
    const A* from = table + row * count - 1;
#pragma unroll
    for (int g = 0; g < GATES; ++g) v[g] = *(from += begin(g));
  }
  __device__ void store(A* table, int64_t row, const A (&v)[GATES]) const {
    A* to = table + row * count;
#pragma unroll
    for (int g = 0; g < GATES; ++g)
      if (begin(g)) *to++ = v[g];
  }
};

// Sums over a block, which alternate between two halves of scratch, so that one barrier each is enough.
template <typename A, int MOST>
struct BlockSum {
  A (*scratch)[MOST][32];
  int buffer = 0;

  template <int K>
  __device__ void operator()(A (&v)[K]) {
    row_sum(v, blockDim.x, scratch[buffer]);
    buffer ^= 1;
  }
};

// A gate's part of a row.
template <typename T, bool PACKED>
struct Units {
  int64_t hidden;
  Tile<T, PACKED> tile;
  int chunks;

  __device__ explicit Units(int64_t hidden)
      : hidden(hidden), tile(hidden, 0), chunks((tile.columns - 1) / int(blockDim.x * kPack<T>) + 1) {}

  template <typename U>
  __device__ Wide<T> load(const U* row, int c) const {
    if constexpr (std::is_same_v<U, T>)
      return widen<T>(tile.load(row, c));
    else
      return tile.load(row, c);
  }
  __device__ Wide<T> load(Parameter p, acc_t<T> absent, int64_t first, int c) const {
    return load_parameter<T>(p, absent, [&](auto* from) { return tile.load(from + first, c); });
  }
  // (x - mean) * rstd of a chunk
  template <typename U>
  __device__ Wide<T> load_xhat(const U* row, int c, acc_t<T> mean, acc_t<T> rstd) const {
    Wide<T> x = load(row, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) x.v[k] = (x.v[k] - mean) * rstd;
    return x;
  }
  // the sum of (x - mean)^2 over a chunk's units that exist
  __device__ acc_t<T> squares(const Wide<T>& x, int c, acc_t<T> mean) const {
    acc_t<T> sum = 0;
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      if (tile.holds(c, k)) sum += (x.v[k] - mean) * (x.v[k] - mean);
    return sum;
  }
};

template <typename T>
__device__ acc_t<T> sum_of(const Wide<T>& x) {
  acc_t<T> sum = 0;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) sum += x.v[k];
  return sum;
}

// ---- host ----

// gates: how many there are in each of n groups
template <typename A, int GATES>
Groups<A, GATES> make_groups(const int64_t* gates, int n, int64_t hidden) {
  Groups<A, GATES> groups{n, 0, {}};
  for (int i = 0, g = 0; i < n; ++i) {
    groups.begins |= 1 << g;
    for (int64_t j = 0; j < gates[i]; ++j) groups.values[g++] = A(gates[i] * hidden);
  }
  return groups;
}

// A block per row, or per line of partial sums.
template <typename T, typename Params>
void launch_layer(void (*kernel)(Params), const Params& p, int64_t blocks, const Device& device) {
  const int64_t warps = ceil_div<int64_t>(p.hidden, 32 * kPack<T>);
  launch(kernel, dim3(blocks), dim3(std::min<int64_t>(32 * warps, kCellThreads)), device, p);
}

}  // namespace normkernels::cuda
