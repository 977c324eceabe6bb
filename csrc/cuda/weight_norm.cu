// Weight norm, and the projection onto filters of length 1.
#include "checks/filters.h"
#include "cuda/base/tensors.h"
#include "cuda/filters/backward.cuh"
#include "cuda/filters/forward.cuh"
#include "cuda/filters/project.cuh"

namespace normkernels::cuda {
namespace {

// run(T(), session) for w in T and v in X: the same, or 16 bits beside float
template <typename Run>
void dispatch_weights(const Tensor& v, const Tensor& w, Run run) {
  dispatch(v, [&]<typename X>(Session<X>& session) {
    if constexpr (std::is_same_v<X, float>) {
      if (w.scalar_type() == ScalarType::BFloat16) return run(__nv_bfloat16(), session);
      if (w.scalar_type() == ScalarType::Half) return run(__half(), session);
    }
    run(X(), session);
  });
}

void weight_norm_fwd(Tensor v, Tensor g, Tensor w, Tensor norm) {
  if (!check::weight_norm_fwd(v, g, w, norm)) return;
  dispatch_weights(v, w, [&]<typename T, typename X>(T, Session<X>& session) {
    FiltersForward<T, X> p{};
    p.x = input<X>(v), p.gain = parameter(g), p.y = output<T>(w), p.statistic = output<acc_t<T>>(norm);
    p.filters.M = v.size(0), p.filters.N = v.size(1);
    p.filters.packed = packed<T>({v.size(1)}, {p.x, p.y});
    filters_forward<false>(p, session.device, session.workspace());
  });
}

void weight_norm_bwd(Tensor dw, Tensor v, Tensor g, Tensor norm, Tensor dv, Optional dg) {
  if (!check::weight_norm_bwd(dw, v, g, norm, dv, dg)) return;
  dispatch_weights(v, dw, [&]<typename T, typename X>(T, Session<X>& session) {
    FiltersBackward<T, X> p{};
    p.dy = input<T>(dw), p.x = input<X>(v), p.gain = parameter(g), p.statistic = input<acc_t<T>>(norm);
    p.dx = output<X>(dv), p.dgain = output<void>(dg), p.dgain_is_float = is_float(dg);
    p.filters.M = v.size(0), p.filters.N = v.size(1);
    p.filters.packed = packed<T>({v.size(1)}, {p.dy, p.x, p.dx});
    filters_backward<false>(p, session.device, session.workspace());
  });
}

void weight_norm_project(std::vector<Tensor> given) {
  const std::vector<Tensor> weights = check::weight_norm_project(given);
  if (weights.empty()) return;
  dispatch(weights[0], [&]<typename T>(Session<T>& session) {
    filters_project<T>(weights.size(), session.device, [&](int i) {
      const Tensor& w = weights[i];
      const bool aligned = packed<T>({w.size(1)}, {output<T>(w)});
      return ProjectedTensor<T>{output<T>(w), w.size(0), w.size(1), 0, 0, aligned};
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<weight_norm_fwd, weight_norm_bwd>(m, "weight_norm");
  m.impl("weight_norm_project", NK_BOX(&weight_norm_project));
}

}  // namespace normkernels::cuda
