// The matrix product that each step of a sequence waits for.
#pragma once

#include "cpu/base/tensors.h"
#include "cpu/base/work.h"
#include "sequence.h"

namespace normkernels {

constexpr int64_t kFewRows = 8;   // so many are multiplied here: a call of torch's product costs more than they do
constexpr int64_t kPanel = 64;    // columns of the matrix that a thread takes at least
constexpr int64_t kFewSteps = 4;  // so many do not pay for a copy of the matrix

// Columns [begin, end) of out (M, N) = a (M, K) b (K, N), for M up to kFewRows; 16 columns or more
template <class C>
void multiply_few_rows(const C* a, const C* b, C* out, int64_t M, int64_t K, int64_t N, int64_t begin, int64_t end);

// By a matrix (K, N) that all steps share: rows of `from` to rows of `to`, both contiguous.
class Product {
 public:
  // steps: how many will follow; rows: of the largest
  Product(const Tensor& matrix, int64_t rows, int64_t steps) : matrix_(matrix) {
#if defined(NK_SHUFFLES)
    const int32_t dtype = check::dtype(matrix);
    few_ = (dtype == check::kFloat32 || dtype == check::kFloat64) && matrix.size(1) >= kFewLanes;
    if (few_ && !matrix.is_contiguous()) {
      few_ = rows <= kFewRows && steps >= kFewSteps;
      if (few_) matrix_ = torch::stable::contiguous(matrix);
    }
#endif
  }

  void operator()(const Tensor& from, int64_t first, const Tensor& to, int64_t at, int64_t rows) const {
    if (!few_ || rows > kFewRows) return product(rows_of(from, first, rows), matrix_, rows_of(to, at, rows));
    check::dtype(matrix_) == check::kFloat32 ? multiply<float>(from, first, to, at, rows)
                                             : multiply<double>(from, first, to, at, rows);
  }

 private:
  template <class C>
  void multiply(const Tensor& from, int64_t first, const Tensor& to, int64_t at, int64_t rows) const {
    const int64_t K = matrix_.size(0), N = matrix_.size(1), panels = std::max<int64_t>(1, N / kPanel);
    const C *a = pointer<C>(from) + first * K, *b = pointer<C>(matrix_);
    C* const out = pointer<C>(to) + at * N;
    parallel_for(0, panels, grain(rows * K * kPanel / 8), [&](int64_t begin, int64_t end) {
      multiply_few_rows(a, b, out, rows, K, N, begin * kPanel, end == panels ? N : end * kPanel);
    });
  }

  Tensor matrix_;
  bool few_ = false;
};

}  // namespace normkernels
