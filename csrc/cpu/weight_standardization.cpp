// Weight standardisation (Qiao et al. 2019, arXiv:1903.10520): the CPU kernels.
#include "checks/filters.h"
#include "cpu/filters/norm.h"

namespace normkernels {
namespace {

void weight_standardization_fwd(const Tensor& w, const OptionalTensor& gain, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, double eps) {
  if (!check::weight_standardization_fwd(w, gain, y, mean, rstd)) return;
  dispatch(w, "weight_standardization_fwd", [&]<class T>(T) { filters_fwd<T, T>(w, gain, y, mean, rstd, eps); });
}

void weight_standardization_bwd(const Tensor& dy, const Tensor& w, const OptionalTensor& gain, const Tensor& mean,
                                const Tensor& rstd, const Tensor& dw, const OptionalTensor& dgain) {
  if (!check::weight_standardization_bwd(dy, w, gain, mean, rstd, dw, dgain)) return;
  dispatch(w, "weight_standardization_bwd", [&]<class T>(T) { filters_bwd<T, T>(dy, w, gain, mean, rstd, dw, dgain); });
}

}  // namespace

NK_CPU(weight_standardization_fwd, weight_standardization_fwd)
NK_CPU(weight_standardization_bwd, weight_standardization_bwd)

}  // namespace normkernels
