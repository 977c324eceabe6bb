// The channel family as ops on tensors; batch, group and instance norm differ only in the shape of mean and var.
#pragma once

#include "cpu/base/tensors.h"

namespace normkernels {

void channels_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight, const OptionalTensor& bias,
                  const Tensor& y, const Tensor& mean, const Tensor& var, double eps, const std::string& activation,
                  double slope, bool channels_last);

void channels_apply(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& y, double eps,
                    const std::string& activation, double slope, bool channels_last);

void channels_moments(const Tensor& x, const Tensor& mean, const Tensor& var, bool channels_last);

void channels_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                  const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& dx,
                  const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias, double eps,
                  bool training, const std::string& activation, double slope, bool channels_last);

void channels_sums(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                   const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& sum_dy,
                   const Tensor& sum_dy_xhat, double eps, const std::string& activation, double slope,
                   bool channels_last);

void channels_dx(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                 const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& mean_dy,
                 const Tensor& mean_dy_xhat, const Tensor& dx, const OptionalTensor& dskip, double eps,
                 const std::string& activation, double slope, bool channels_last);

}  // namespace normkernels
