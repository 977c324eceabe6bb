// How work is shared among threads. Only what is computed where depends on it, never a result.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace normkernels {

using torch::stable::parallel_for;

constexpr int64_t kTile = 1024;      // elements of a tile: what is loaded, computed and stored at once
constexpr int64_t kSegment = 65536;  // elements of a long row that one thread takes

inline int64_t segments(int64_t N) { return (N + kSegment - 1) / kSegment; }

// Fewer rows than threads, and long ones: share each row among the threads.
inline bool split_rows(int64_t M, int64_t N) { return N > kSegment && M < torch::stable::get_num_threads(); }

// Rows that are worth a thread of their own.
inline int64_t grain(int64_t N) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(N, 1)); }

template <class F>
void for_each(int64_t n, const F& f) {
  parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) f(i);
  });
}

}  // namespace normkernels
