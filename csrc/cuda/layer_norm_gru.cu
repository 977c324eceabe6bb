// The GRU with layer norm.
#include "checks/recurrent.h"
#include "cuda/recurrent/layer_norm_gru.cuh"
#include "cuda/recurrent/steps.h"

namespace normkernels::cuda {
namespace {

void layer_norm_gru_fwd(Tensor x, Tensor weight_hh, Optional weight, Optional bias, Optional batch_sizes, Tensor h,
                        Tensor y, Tensor a, Tensor mean, Tensor rstd, Tensor gates, std::vector<int64_t> groups,
                        bool separate, double eps, bool reverse) {
  if (!check::layer_norm_gru_fwd(x, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, gates, groups)) return;
  dispatch(x, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_forward<LayerNormGruForward, T>(x, weight, bias, h, y, a, separate, eps);
    p.mean = output<A>(mean), p.rstd = output<A>(rstd);
    p.groups = make_groups<A, 3>(groups.data(), groups.size(), p.hidden);
    p.gates = output<T>(gates), p.packed = packed_step<T>(p) && packed<T>({}, {p.gates});
    walk_forward(p, y, weight_hh, h, a, batch_sizes, reverse, session.device);
  });
}

void layer_norm_gru_bwd(Tensor dy, Tensor gates, Tensor previous, Tensor a, Tensor mean, Tensor rstd, Tensor weight_hh,
                        Optional weight, Optional bias, Optional batch_sizes, Tensor dh, Tensor dinput, Optional da,
                        Optional dweight, Optional dbias, std::vector<int64_t> groups, bool reverse) {
  if (!check::layer_norm_gru_bwd(dy, gates, previous, a, mean, rstd, weight_hh, weight, bias, batch_sizes, dh, dinput,
                                 da, dweight, dbias, groups))
    return;
  dispatch(dy, [&]<typename T>(Session<T>& session) {
    using A = acc_t<T>;
    auto p = step_backward<LayerNormGruBackward, T>(dy, a, weight, dh, dinput, da);
    p.mean = input<A>(mean), p.rstd = input<A>(rstd), p.bias = parameter(bias);
    p.groups = make_groups<A, 3>(groups.data(), groups.size(), p.hidden);
    p.gates = input<T>(gates), p.previous = input<T>(previous), p.direct = zeros(session, dh.numel());
    p.P = lines_of(dh.size(0)), p.partial = zero_lines(session, dweight, dbias, p.P, 3 * p.hidden);
    p.packed = packed_step<T>(p) && packed<T>({}, {p.gates, p.previous, p.direct});
    walk_backward(p, da ? *da : dinput, weight_hh, dh, batch_sizes, reverse, session.device);
    layer_norm_gru_add(p, dh.size(0), session.device);
    add_lines_up<T>(p.partial, dweight, dbias, p.P, 3 * p.hidden, session.device);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CUDA, m) {
  implement<layer_norm_gru_fwd, layer_norm_gru_bwd>(m, "layer_norm_gru");
}

}  // namespace normkernels::cuda
