// A walk over the steps of a sequence, and the matrix product that each step waits for.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace normkernels {

// Step t of a sequence: that many rows, from row `first` on.
struct SequenceStep {
  int64_t t, first, rows;
};

// The steps in the order of the walk; batch_sizes is on the CPU, and absent where every step has `batch` rows.
inline std::vector<SequenceStep> walk(int64_t total, int64_t batch,
                                      const std::optional<torch::stable::Tensor>& batch_sizes, bool reverse) {
  const int64_t* sizes = batch_sizes ? static_cast<const int64_t*>(batch_sizes->const_data_ptr()) : nullptr;
  const int64_t count = batch_sizes ? batch_sizes->numel() : total / batch;
  std::vector<SequenceStep> steps;
  for (int64_t t = 0, first = 0; t < count; t++) {
    steps.push_back({t, first, sizes ? sizes[t] : batch});
    first += steps.back().rows;
  }
  if (reverse) std::reverse(steps.begin(), steps.end());
  return steps;
}

// Where a step's rows begin in a buffer of all steps, or of one.
inline int64_t kept(const SequenceStep& step, const torch::stable::Tensor& buffer, int64_t total) {
  return buffer.size(0) == total ? step.first : 0;
}

// Rows of t: t itself where that is all of them.
inline torch::stable::Tensor rows_of(const torch::stable::Tensor& t, int64_t first, int64_t rows) {
  if (first == 0 && rows == t.size(0)) return t;
  torch::stable::Tensor whole = t;
  return torch::stable::narrow(whole, 0, first, rows);
}

// out = a b, by torch's own product
inline void product(const torch::stable::Tensor& a, const torch::stable::Tensor& b, const torch::stable::Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(out)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<torch::stable::Tensor>(stack[0]);  // takes the reference that the call returned
}

}  // namespace normkernels
