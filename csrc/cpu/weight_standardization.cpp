// Weight standardisation (Qiao et al. 2019, arXiv:1903.10520): the CPU kernels.
#include "checks/filters.h"
#include "cpu/base/gradient_table.h"
#include "cpu/filters/filters.h"
#include "schemas.h"

namespace normkernels {
namespace {

void weight_standardization_fwd(const Tensor& w, const OptionalTensor& gain, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, double eps) {
  if (!check::weight_standardization_fwd(w, gain, y, mean, rstd)) return;
  dispatch(w, "weight_standardization_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> g(gain, 0);
    filters(FiltersForward<T, T>{.M = w.size(0),
                                 .N = w.size(1),
                                 .x = pointer<T>(w),
                                 .gain = g.data(),
                                 .y = pointer<T>(y),
                                 .mean = pointer<C>(mean),
                                 .statistic = pointer<C>(rstd),
                                 .eps = eps});
  });
}

void weight_standardization_bwd(const Tensor& dy, const Tensor& w, const OptionalTensor& gain, const Tensor& mean,
                                const Tensor& rstd, const Tensor& dw, const OptionalTensor& dgain) {
  if (!check::weight_standardization_bwd(dy, w, gain, mean, rstd, dw, dgain)) return;
  dispatch(w, "weight_standardization_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Parameter<C> g(gain, 0);
    GradientTable<C> dg(dgain, 1, w.size(0));
    filters(FiltersBackward<T, T>{.M = w.size(0),
                                  .N = w.size(1),
                                  .dy = pointer<T>(dy),
                                  .x = pointer<T>(w),
                                  .gain = g.data(),
                                  .mean = pointer<C>(mean),
                                  .statistic = pointer<C>(rstd),
                                  .dx = pointer<T>(dw),
                                  .dgain = dg.data()});
    dg.finish();
  });
}

}  // namespace
}  // namespace normkernels

STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) {
  m.def(normkernels::schema::weight_standardization_fwd);
  m.def(normkernels::schema::weight_standardization_bwd);
}

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) {
  m.impl("weight_standardization_fwd", TORCH_BOX(&normkernels::weight_standardization_fwd));
  m.impl("weight_standardization_bwd", TORCH_BOX(&normkernels::weight_standardization_bwd));
}
