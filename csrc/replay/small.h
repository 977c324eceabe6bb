// Torch's own elementwise ops on a few numbers, such as the statistics of a layer: for these the call is everything.
//
// The same bits as torch's kernels give, for contiguous tensors of one dtype on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>

namespace normkernels::replay {

struct Small {
  enum class Op { add, sub, mul, div, lerp, clamp, abs, lt, gt, where, copy, to_float, to_double } op;
  at::ScalarType dtype;  // of what is read
  int64_t n;

  // The op of this name; none if it is no such op.
  static std::optional<Op> find(const std::string& name);
};

// What is read: n numbers, or one that stands for all; by where also fewer, which come again.
struct Read {
  const void* data;
  int64_t count;
};

void run(const Small& op, void* out, const std::array<Read, 3>& in);

}  // namespace normkernels::replay
