// What the schema of an op cannot say of its arguments, checked before a kernel sees a pointer.
//
// An op hands each tensor to a Call, with the dtype and the shape that follow from its first one. What passes has
// memory, on one device, laid out as the kernels walk it, and what is written overlaps nothing else of the call.
#pragma once

#if defined(__CUDACC__) && !defined(USE_CUDA)
#define USE_CUDA  // before torch's headers, as in cuda/tensors.h
#endif
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/HeaderOnlyArrayRef.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

namespace normkernels {
namespace check {

using torch::stable::Tensor;

// torch's numbers of dtypes and of the CPU
inline const int32_t kFloat64 = aoti_torch_dtype_float64(), kFloat32 = aoti_torch_dtype_float32(),
                     kFloat16 = aoti_torch_dtype_float16(), kBFloat16 = aoti_torch_dtype_bfloat16(),
                     kInt64 = aoti_torch_dtype_int64(), kCpu = aoti_torch_device_type_cpu();

inline int32_t dtype(const Tensor& t) {
  int32_t found;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &found));
  return found;
}
inline int32_t device(const Tensor& t) {
  int32_t found;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &found));
  return found;
}
inline int64_t bytes(int32_t dtype) { return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2; }

// Of (..., N), N apart; and how many dims there may be
inline constexpr int64_t kMostRanks = 4;
inline int64_t rows(torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  int64_t found = 1;
  for (size_t i = 0; i + 1 < sizes.size(); i++) found *= sizes[i];
  return found;
}

}  // namespace check

// A tensor that an op was given, or none.
struct Argument {
  const torch::stable::Tensor* tensor;

  Argument(const torch::stable::Tensor& t) : tensor(&t) {}
  Argument(const std::optional<torch::stable::Tensor>& t) : tensor(t ? &*t : nullptr) {}
  Argument(std::nullopt_t) : tensor(nullptr) {}
  explicit operator bool() const { return tensor != nullptr; }
};

// Beside a first tensor in T: T, T or float32 beside 16 bits, the dtype of T's arithmetic, float64 whatever T is.
enum class Dtype { same, parameter, statistic, float64 };

// rows: any distance apart, with adjacent columns; of (M, N), or of (..., N) where they lie at two distances or three
enum class Layout { dense, rows };

using Sizes = std::initializer_list<int64_t>;

class Call {
 public:
  // Of the first tensor, which is handed over later like the others, the dtype and the rank are checked here: that, or
  // up to most.
  Call(const char* op, const char* name, const torch::stable::Tensor& first, int64_t rank, int64_t most = 0);

  int64_t size(int64_t dim) const { return sizes_[dim]; }
  int64_t rows() const { return check::rows(sizes_); }
  int64_t columns() const { return sizes_[sizes_.size() - 1]; }

  void read(const char* name, Argument t, Dtype dtype, Sizes shape, Layout layout = Layout::dense) {
    if (t) take(name, *t.tensor, dtype, shape, layout, false);
  }
  void write(const char* name, Argument t, Dtype dtype, Sizes shape) {
    if (t) take(name, *t.tensor, dtype, shape, Layout::dense, true);
  }
  // The same for what may also be the tensor that was read first.
  void write_in_place(const char* name, const torch::stable::Tensor& t, Dtype dtype, Sizes shape) {
    if (t.const_data_ptr() == spans_[0].begin) spans_[0].end = spans_[0].begin;
    take(name, t, dtype, shape, Layout::dense, true);
  }
  // The sizes of steps, which the host walks along: the only tensor that is on the CPU whatever the device.
  const int64_t* read_sizes(const char* name, const torch::stable::Tensor& t) const;

  void must(bool holds, const char* name, const char* rule) const {
    if (!holds) [[unlikely]]
      fail(name, rule);
  }
  // Whether there is anything to compute; if not, what is written is set to 0, as sums over nothing are.
  bool any() const { return !empty_ || nothing(); }

 private:
  static constexpr int kMost = 32;  // tensors of an op
  struct Span {
    const char *begin, *end;
  };

  void take(const char* name, const torch::stable::Tensor& t, Dtype dtype, Sizes shape, Layout layout, bool written);
  bool fits(int32_t dtype, Dtype wanted) const;
  bool nothing() const;
  [[noreturn]] void fail(const char* name, const char* rule) const;
  [[noreturn]] void fail_rank(int64_t rank, int64_t most) const;
  [[noreturn]] void fail_dtype(const char* name, Dtype dtype) const;
  [[noreturn]] void fail_shape(const char* name, const torch::stable::Tensor& t, Sizes shape) const;
  [[noreturn]] void fail_overlap(const char* name, const char* other) const;

  const char *op_, *first_;
  torch::headeronly::IntHeaderOnlyArrayRef sizes_;
  int32_t dtype_, statistic_;
  bool on_cpu_;  // then all are: torch runs an op's CUDA kernel, whose Session refuses this one, if any is elsewhere
  int32_t index_ = 0;
  bool empty_;
  int count_ = 0;
  Span spans_[kMost];
  const char* names_[kMost];
  const torch::stable::Tensor* tensors_[kMost];  // null: read alone
};

}  // namespace normkernels
