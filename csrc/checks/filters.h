// The arguments of the filter family: a weight (M, N), a filter in each row.
#pragma once

#include <vector>

#include "checks/call.h"

namespace normkernels::check {

// w gives the dtype; v may be float32 beside it.
inline bool weight_norm_fwd(Argument v, Argument g, const Tensor& w, Argument norm) {
  Call call("weight_norm_fwd", "w", w, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("v", v, Dtype::parameter, {M, N});
  call.read("g", g, Dtype::parameter, {M});
  call.write("w", w, Dtype::same, {M, N});
  call.write("norm", norm, Dtype::statistic, {M});
  return call.any();
}

inline bool weight_norm_bwd(const Tensor& dw, const Tensor& v, Argument g, Argument norm, const Tensor& dv,
                            Argument dg) {
  Call call("weight_norm_bwd", "dw", dw, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("dw", dw, Dtype::same, {M, N});
  call.read("v", v, Dtype::parameter, {M, N});
  call.read("g", g, Dtype::parameter, {M});
  call.read("norm", norm, Dtype::statistic, {M});
  call.must(dtype(dv) == dtype(v), "dv", "have the dtype of v");
  call.write("dv", dv, Dtype::parameter, {M, N});
  call.write("dg", dg, Dtype::parameter, {M});
  return call.any();
}

// The weights with something in them, each once: layers that share one name it twice. They may not overlap otherwise.
inline std::vector<Tensor> weight_norm_project(const std::vector<Tensor>& weights) {
  std::vector<Tensor> distinct;
  for (const Tensor& w : weights) {
    Call call("weight_norm_project", "weights", weights[0], 2);
    const auto sizes = w.sizes();
    call.must(sizes.size() == 2, "weights", "have 2 dimensions each");
    call.write("weights", w, Dtype::same, {sizes[0], sizes[1]});
    if (sizes[0] > 0 && sizes[1] > 0) distinct.push_back(w);
  }
  const auto begin = [](const Tensor& w) { return static_cast<const char*>(w.const_data_ptr()); };
  std::sort(distinct.begin(), distinct.end(), [&](const Tensor& a, const Tensor& b) { return begin(a) < begin(b); });
  const auto same = [&](const Tensor& a, const Tensor& b) {
    return begin(a) == begin(b) && a.size(0) == b.size(0) && a.size(1) == b.size(1);
  };
  distinct.erase(std::unique(distinct.begin(), distinct.end(), same), distinct.end());
  for (size_t i = 1; i < distinct.size(); i++) {
    const Tensor& before = distinct[i - 1];
    STD_TORCH_CHECK(begin(before) + before.numel() * bytes(dtype(before)) <= begin(distinct[i]),
                    "weight_norm_project: weights must share no memory with each other");
  }
  return distinct;
}

inline bool weight_standardization_fwd(const Tensor& w, Argument gain, Argument y, Argument mean, Argument rstd) {
  Call call("weight_standardization_fwd", "w", w, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("w", w, Dtype::same, {M, N});
  call.read("gain", gain, Dtype::parameter, {M});
  call.write("y", y, Dtype::same, {M, N});
  call.write("mean", mean, Dtype::statistic, {M});
  call.write("rstd", rstd, Dtype::statistic, {M});
  return call.any();
}

inline bool weight_standardization_bwd(Argument dy, const Tensor& w, Argument gain, Argument mean, Argument rstd,
                                       Argument dw, Argument dgain) {
  Call call("weight_standardization_bwd", "w", w, 2);
  const int64_t M = call.size(0), N = call.size(1);
  call.read("dy", dy, Dtype::same, {M, N});
  call.read("w", w, Dtype::same, {M, N});
  call.read("gain", gain, Dtype::parameter, {M});
  call.read("mean", mean, Dtype::statistic, {M});
  call.read("rstd", rstd, Dtype::statistic, {M});
  call.write("dw", dw, Dtype::same, {M, N});
  call.write("dgain", dgain, Dtype::parameter, {M});
  return call.any();
}

}  // namespace normkernels::check
