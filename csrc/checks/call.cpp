// How a Call checks: a few reads of each tensor's own description, and text only where something is wrong.
#include "checks/call.h"

#include <algorithm>
#include <cstdlib>

namespace normkernels {
namespace {

template <class Numbers>
std::string text(const Numbers& shape) {
  std::string all;
  for (const int64_t n : shape) all += (all.empty() ? "" : ", ") + std::to_string(n);
  return "(" + all + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace

Call::Call(const char* op, const char* name, const check::Tensor& first, int64_t rank, int64_t most)
    : op_(op),
      first_(name),
      sizes_(first.sizes()),
      dtype_(check::dtype(first)),
      on_cpu_(check::device(first) == check::kCpu) {
  const bool wide = dtype_ == check::kFloat64;
  must(wide || dtype_ == check::kFloat32 || dtype_ == check::kBFloat16 || dtype_ == check::kFloat16, name,
       "be float64, float32, bfloat16 or float16");
  statistic_ = wide ? check::kFloat64 : check::kFloat32;
  if (!on_cpu_) index_ = first.get_device_index();
  const auto dims = static_cast<int64_t>(sizes_.size());
  if (dims < rank || dims > std::max(rank, most)) [[unlikely]]
    fail_rank(rank, most);
  empty_ = std::find(sizes_.begin(), sizes_.end(), 0) != sizes_.end();
}

bool Call::fits(int32_t dtype, Dtype wanted) const {
  switch (wanted) {
    case Dtype::same:
      return dtype == dtype_;
    case Dtype::parameter:
      return dtype == dtype_ || dtype == statistic_;
    case Dtype::statistic:
      return dtype == statistic_;
    default:
      return dtype == check::kFloat64;
  }
}

void Call::take(const char* name, const check::Tensor& t, Dtype wanted, Sizes shape, Layout layout, bool written) {
  const int32_t dtype = check::dtype(t);
  if (!fits(dtype, wanted)) [[unlikely]]
    fail_dtype(name, wanted);
  if (!on_cpu_)
    must(check::device(t) != check::kCpu && t.get_device_index() == index_, name, "be on the device of the others");
  const auto sizes = t.sizes();
  const bool many = layout == Layout::rows && sizes.size() > 2 && sizes.size() <= check::kMostRanks;
  const bool fitting = many ? check::rows(sizes) == shape.begin()[0] && sizes[sizes.size() - 1] == shape.begin()[1]
                            : sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin());
  if (!fitting) [[unlikely]]
    fail_shape(name, t, shape);
  int64_t elements = 1;
  for (const int64_t n : shape) elements *= n;
  if (layout == Layout::dense) {
    must(t.is_contiguous(), name, "be contiguous");
  } else if (elements > 0) {
    const int64_t columns = shape.begin()[1], last = static_cast<int64_t>(sizes.size()) - 1;
    must(columns == 1 || t.stride(last) == 1, name, "have adjacent columns");
    elements = columns;
    for (int64_t d = 0; d < last; d++) elements += (sizes[d] - 1) * t.stride(d);
  }
  const char* begin = static_cast<const char*>(written ? t.mutable_data_ptr() : t.const_data_ptr());
  must(begin != nullptr || elements == 0, name, "have memory");
  const Span span = {begin, begin + elements * check::bytes(dtype)};
  for (int i = 0; i < count_; i++) {
    if (!written && !tensors_[i]) continue;
    if (std::max(span.begin, spans_[i].begin) < std::min(span.end, spans_[i].end)) [[unlikely]]
      fail_overlap(name, names_[i]);
  }
  spans_[count_] = span;
  names_[count_] = name;
  tensors_[count_++] = written ? &t : nullptr;
}

const int64_t* Call::read_sizes(const char* name, const check::Tensor& t) const {
  must(check::device(t) == check::kCpu && check::dtype(t) == check::kInt64 && t.dim() == 1 && t.is_contiguous(), name,
       "be contiguous int64 (T,) on the CPU");
  const void* data = t.const_data_ptr();
  must(t.numel() > 0 && data != nullptr, name, "have at least one step");
  return static_cast<const int64_t*>(data);
}

bool Call::nothing() const {
  for (int i = 0; i < count_; i++) {
    if (!tensors_[i]) continue;
    check::Tensor written = *tensors_[i];
    torch::stable::zero_(written);
  }
  return false;
}

void Call::fail(const char* name, const char* rule) const {
  STD_TORCH_CHECK(false, op_, ": ", name, " must ", rule);
  std::abort();
}
void Call::fail_rank(int64_t rank, int64_t most) const {
  const std::string many = most > rank ? " to " + std::to_string(most) : "";
  fail(first_, ("have " + std::to_string(rank) + many + " dimensions, got shape " + text(sizes_)).c_str());
}
void Call::fail_dtype(const char* name, Dtype dtype) const {
  const std::string first = first_;
  const std::string rule = dtype == Dtype::same        ? "have the dtype of " + first
                           : dtype == Dtype::parameter ? "have the dtype of " + first + ", or float32 beside 16 bits"
                           : dtype == Dtype::statistic ? "be float32, or float64 where " + first + " is"
                                                       : "be float64";
  fail(name, rule.c_str());
}
void Call::fail_shape(const char* name, const check::Tensor& t, Sizes shape) const {
  fail(name, ("have shape " + text(shape) + ", got " + text(t.sizes())).c_str());
}
void Call::fail_overlap(const char* name, const char* other) const {
  fail(name, (std::string("share no memory with ") + other).c_str());
}

}  // namespace normkernels
