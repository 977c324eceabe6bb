// Where the rows of (..., N) lie: in runs of rows one distance apart, the runs side by side at one distance too, and
// those again. Of (M, N) all rows are one run.
#pragma once

#include <cstdint>
#include <optional>

namespace normkernels {

struct Runs {
  int64_t rows = 0, side = 1;  // of a run, or 0: there is one; runs side by side
  int64_t near = 0, far = 0;   // from a run to the next one, and from so many to the next ones

  explicit operator bool() const { return rows != 0; }
  // Where the run of row m ends, and what is added to the tensor's beginning so that row m lies m strides from there.
  int64_t end(int64_t m) const { return (m / rows + 1) * rows; }
  int64_t shift(int64_t m, int64_t stride) const {
    const int64_t run = m / rows;
    return run / side * far + run % side * near - run * rows * stride;
  }
};

// Of an (M, N), or of up to three dims of rows
template <class Tensor>
Runs runs_of(const Tensor& t) {
  const int64_t dims = t.dim();
  if (dims == 2) return {};
  return {t.size(dims - 2), t.size(dims - 3), t.stride(dims - 3), dims > 3 ? t.stride(0) : 0};
}

template <class Tensor>
Runs runs_of(const std::optional<Tensor>& t) {
  return t ? runs_of(*t) : Runs{};
}
// And the distance of its rows in a run
template <class Tensor>
int64_t row_stride(const Tensor& t) {
  return t.stride(t.dim() - 2);
}
template <class Tensor>
int64_t row_stride(const std::optional<Tensor>& t) {
  return t ? row_stride(*t) : 0;
}

}  // namespace normkernels
