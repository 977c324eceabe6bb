// From tensors to the sweeps of the filter family.
#pragma once

#include "cpu/base/gradient_table.h"
#include "cpu/filters/filters.h"

namespace normkernels {

// x in T, y in D; mean: none without centring
template <class T, class D>
void filters_fwd(const Tensor& x, const OptionalTensor& gain, const Tensor& y, const OptionalTensor& mean,
                 const Tensor& statistic, double eps) {
  using C = compute_t<T>;
  const Parameter<C> g(gain, 0);
  filters(FiltersForward<T, D>{.M = x.size(0),
                               .N = x.size(1),
                               .x = pointer<T>(x),
                               .gain = g.data(),
                               .y = pointer<D>(y),
                               .mean = pointer<C>(mean),
                               .statistic = pointer<C>(statistic),
                               .eps = eps});
}

template <class T, class D>
void filters_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& gain, const OptionalTensor& mean,
                 const Tensor& statistic, const Tensor& dx, const OptionalTensor& dgain) {
  using C = compute_t<T>;
  const Parameter<C> g(gain, 0);
  GradientTable<C> dg(dgain, 1, x.size(0));
  filters(FiltersBackward<T, D>{.M = x.size(0),
                                .N = x.size(1),
                                .dy = pointer<D>(dy),
                                .x = pointer<T>(x),
                                .gain = g.data(),
                                .mean = pointer<C>(mean),
                                .statistic = pointer<C>(statistic),
                                .dx = pointer<T>(dx),
                                .dgain = dg.data()});
  dg.finish();
}

}  // namespace normkernels
