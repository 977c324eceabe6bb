// The matrix product that each step of a sequence waits for.
#pragma once

#include "cpu/base/tensors.h"
#include "cpu/base/work.h"
#include "sequence.h"

namespace normkernels {

constexpr int64_t kPanel = 32;    // columns of the matrix that lie together, row by row
constexpr int64_t kFewSteps = 4;  // so many do not pay for laying the matrix out
constexpr int64_t kFewRows = 8;   // so many cost less than a call of torch's product does

// b (K, N) in panels (K, kPanel); what the last has beyond N stays as it is.
template <class C>
void lay_out(const C* b, int64_t K, int64_t N, int64_t stride_k, int64_t stride_n, C* panels);

// Of out (M, N) = a (M, K) b the columns of the panels [begin, end)
template <class C>
void multiply(const C* a, const C* panels, C* out, int64_t M, int64_t K, int64_t N, int64_t begin, int64_t end);

// Whether so many rows are multiplied here: all of them where the sums of four rows fit in the registers.
inline bool multiplied_here(int64_t rows) {
#if defined(NK_AVX512)
  if (kAvx512) return true;
#endif
  return rows <= kFewRows;
}

// By a matrix (K, N) that all steps share: rows of `from` to rows of `to`, both contiguous.
class Product {
 public:
  // steps: how many will follow; rows: of the largest
  Product(const Tensor& matrix, int64_t steps, int64_t rows) : matrix_(matrix) {
#if defined(NK_SHUFFLES)
    const int32_t dtype = check::dtype(matrix);
    if (steps < kFewSteps || !multiplied_here(rows)) return;
    if (dtype == check::kFloat32) lay_out_into(floats_);
    if (dtype == check::kFloat64) lay_out_into(doubles_);
#endif
  }

  void operator()(const Tensor& from, int64_t first, const Tensor& to, int64_t at, int64_t rows) const {
#if defined(NK_SHUFFLES)
    if (!floats_.empty()) return multiply_by(floats_, from, first, to, at, rows);
    if (!doubles_.empty()) return multiply_by(doubles_, from, first, to, at, rows);
#endif
    product(rows_of(from, first, rows), matrix_, rows_of(to, at, rows));
  }

 private:
  int64_t panels() const { return (matrix_.size(1) + kPanel - 1) / kPanel; }

  template <class C>
  void lay_out_into(Scratch<C>& laid_out) {
    laid_out.resize(matrix_.size(0) * panels() * kPanel);
    lay_out(pointer<C>(matrix_), matrix_.size(0), matrix_.size(1), matrix_.stride(0), matrix_.stride(1),
            laid_out.data());
  }

  template <class C>
  void multiply_by(const Scratch<C>& laid_out, const Tensor& from, int64_t first, const Tensor& to, int64_t at,
                   int64_t rows) const {
    const int64_t K = matrix_.size(0), N = matrix_.size(1);
    parallel_for(0, panels(), grain(rows * K * kPanel / 8), [&](int64_t begin, int64_t end) {
      multiply(pointer<C>(from) + first * K, laid_out.data(), pointer<C>(to) + at * N, rows, K, N, begin, end);
    });
  }

  Tensor matrix_;
  Scratch<float> floats_;
  Scratch<double> doubles_;
};

}  // namespace normkernels
