// Weight standardisation.
#include "checks/filters.h"
#include "cuda/base/tensors.h"
#include "cuda/filters/backward.cuh"
#include "cuda/filters/forward.cuh"

namespace normkernels::cuda {
namespace {

void weight_standardization_fwd(Tensor w, Optional gain, Tensor y, Tensor mean, Tensor rstd, double eps) {
  if (!check::weight_standardization_fwd(w, gain, y, mean, rstd)) return;
  dispatch(w, [&]<typename T>(Session<T>& session) {
    FiltersForward<T, T> p{};
    p.x = input<T>(w), p.gain = parameter(gain), p.y = output<T>(y), p.eps = eps;
    p.mean = output<acc_t<T>>(mean), p.statistic = output<acc_t<T>>(rstd);
    p.filters.M = w.size(0), p.filters.N = w.size(1);
    p.filters.packed = packed<T>({w.size(1)}, {p.x, p.y});
    filters_forward<true>(p, session.device, session.workspace());
  });
}

void weight_standardization_bwd(Tensor dy, Tensor w, Optional gain, Tensor mean, Tensor rstd, Tensor dw,
                                Optional dgain) {
  if (!check::weight_standardization_bwd(dy, w, gain, mean, rstd, dw, dgain)) return;
  dispatch(w, [&]<typename T>(Session<T>& session) {
    FiltersBackward<T, T> p{};
    p.dy = input<T>(dy), p.x = input<T>(w), p.gain = parameter(gain);
    p.mean = input<acc_t<T>>(mean), p.statistic = input<acc_t<T>>(rstd);
    p.dx = output<T>(dw), p.dgain = output<void>(dgain), p.dgain_is_float = is_float(dgain);
    p.filters.M = w.size(0), p.filters.N = w.size(1);
    p.filters.packed = packed<T>({w.size(1)}, {p.dy, p.x, p.dx});
    filters_backward<true>(p, session.device, session.workspace());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<weight_standardization_fwd, weight_standardization_bwd>(m, "weight_standardization");
}

}  // namespace normkernels::cuda
