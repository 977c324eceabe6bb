// Where a row lies of what is only read: (M, N), or rows in runs.
#pragma once

#include "runs.h"

namespace normkernels::cuda {

struct RunsFrom : Runs {
  int64_t first = 0;  // the row of the tensor that is row 0
};

template <typename T>
__device__ const T* row_of(const T* tensor, int64_t stride, const RunsFrom& runs, int64_t row) {
  if (runs.rows == 0) return tensor + row * stride;
  const int64_t run = (row + runs.first) / runs.rows, within = (row + runs.first) % runs.rows;
  return tensor + within * stride + run % runs.side * runs.near + run / runs.side * runs.far;
}

// ---- host ----

// From that many rows on, or null
template <typename T>
void skip_rows(const T*& tensor, int64_t stride, RunsFrom& runs, int64_t rows) {
  if (tensor == nullptr) return;
  if (runs.rows == 0) {
    tensor += rows * stride;
  } else {
    runs.first += rows;
  }
}

}  // namespace normkernels::cuda
