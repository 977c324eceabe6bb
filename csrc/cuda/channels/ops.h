// The channel family as ops on tensors; batch, group and instance norm differ only in the shape of mean and var.
#pragma once

#include "cuda/base/tensors.h"
#include "cuda/channels/plan.cuh"

namespace normkernels::cuda {

void channels_fwd_op(Tensor x, Optional skip, Optional weight, Optional bias, Tensor y, Tensor mean, Tensor var,
                     double eps, std::string activation, double slope, bool last);
void channels_apply_op(Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var, Tensor y,
                       double eps, std::string activation, double slope, bool last);
void channels_moments_op(Tensor x, Tensor mean, Tensor var, bool last);

void channels_bwd_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                     Tensor dx, Optional dskip, Optional dweight, Optional dbias, double eps, bool training,
                     std::string activation, double slope, bool last);
void channels_sums_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                      Tensor sum_dy, Tensor sum_dy_xhat, double eps, std::string activation, double slope, bool last);
void channels_dx_op(Tensor dy, Tensor x, Optional skip, Optional weight, Optional bias, Tensor mean, Tensor var,
                    Tensor mean_dy, Tensor mean_dy_xhat, Tensor dx, Optional dskip, double eps, std::string activation,
                    double slope, bool last);

// B by G statistics. What is read or written in packs: tensors, and parameters where channels are last.
template <typename T>
Plan plan_of(const Tensor& x, int64_t B, int64_t G, bool last, std::initializer_list<const void*> tensors,
             std::initializer_list<const void*> parameters) {
  const int64_t C = x.size(last ? 2 : 1), S = x.size(last ? 1 : 2);
  const bool aligned = packed<T>({}, tensors) && (!last || packed<T>({}, parameters));
  return make_plan<T>(x.size(0), C, S, B, G, last, aligned);
}

// mean is (B, G), or (C,) for (1, C)
template <typename T>
Plan plan_of(const Tensor& x, const Tensor& mean, bool last, std::initializer_list<const void*> tensors,
             std::initializer_list<const void*> parameters) {
  const int64_t B = mean.dim() == 2 ? mean.size(0) : 1;
  return plan_of<T>(x, B, mean.numel() / B, last, tensors, parameters);
}

// of B = 1: statistics by channel alone
template <typename T>
Plan plan_of_channels(const Tensor& x, bool last, std::initializer_list<const void*> tensors,
                      std::initializer_list<const void*> parameters) {
  return plan_of<T>(x, 1, x.size(last ? 2 : 1), last, tensors, parameters);
}

}  // namespace normkernels::cuda
