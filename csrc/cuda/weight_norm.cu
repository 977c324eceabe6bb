// Weight norm, and the projection onto filters of length 1.
#include "checks/filters.h"
#include "cuda/base/tensors.h"
#include "cuda/filters/backward.cuh"
#include "cuda/filters/forward.cuh"
#include "cuda/filters/project.cuh"

namespace normkernels::cuda {
namespace {

// run(T(), X()) for w in T and v in X: the same, or float beside 16 bits
template <typename Run>
void dispatch_weights(const Tensor& v, const Tensor& w, Run run) {
  dispatch(w, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 2)
      if (v.scalar_type() == ScalarType::Float) return run(zero, float());
    run(zero, zero);
  });
}

void weight_norm_fwd(Tensor v, Tensor g, Tensor w, Tensor norm) {
  if (!check::weight_norm_fwd(v, g, w, norm)) return;
  dispatch_weights(v, w, [&](auto in_w, auto in_v) {
    using T = decltype(in_w);
    using X = decltype(in_v);
    Session session(v);
    FiltersForward<T, X> p{};
    p.x = input<X>(v), p.gain = parameter(g), p.y = output<T>(w), p.statistic = output<acc_t<T>>(norm);
    p.filters.M = v.size(0), p.filters.N = v.size(1);
    p.filters.packed = packed<T>({v.size(1)}, {p.x, p.y});
    filters_forward<false>(p, session.device, [&](int64_t n) { return session.workspace<T>(n); });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void weight_norm_bwd(Tensor dw, Tensor v, Tensor g, Tensor norm, Tensor dv, Optional dg) {
  if (!check::weight_norm_bwd(dw, v, g, norm, dv, dg)) return;
  dispatch_weights(v, dw, [&](auto in_w, auto in_v) {
    using T = decltype(in_w);
    using X = decltype(in_v);
    Session session(v);
    FiltersBackward<T, X> p{};
    p.dy = input<T>(dw), p.x = input<X>(v), p.gain = parameter(g), p.statistic = input<acc_t<T>>(norm);
    p.dx = output<X>(dv), p.dgain = output<void>(dg), p.dgain_is_float = is_float(dg);
    p.filters.M = v.size(0), p.filters.N = v.size(1);
    p.filters.packed = packed<T>({v.size(1)}, {p.dy, p.x, p.dx});
    filters_backward<false>(p, session.device, [&](int64_t n) { return session.workspace<T>(n); });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void weight_norm_project(std::vector<Tensor> given) {
  const std::vector<Tensor> weights = check::weight_norm_project(given);
  if (weights.empty()) return;
  dispatch(weights[0], [&](auto zero) {
    using T = decltype(zero);
    Session session(weights[0]);
    filters_project<T>(weights.size(), session.device, [&](int i) {
      const Tensor& w = weights[i];
      const bool aligned = packed<T>({w.size(1)}, {output<T>(w)});
      return ProjectedTensor<T>{output<T>(w), w.size(0), w.size(1), 0, 0, aligned};
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  m.impl("weight_norm_fwd", TORCH_BOX(&weight_norm_fwd));
  m.impl("weight_norm_bwd", TORCH_BOX(&weight_norm_bwd));
  m.impl("weight_norm_project", TORCH_BOX(&weight_norm_project));
}

}  // namespace normkernels::cuda
