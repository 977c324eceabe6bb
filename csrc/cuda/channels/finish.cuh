// What follows u = xhat * w + b in the channel family, and its gradients. FINISH: nothing but skip, an activation too,
// or a gate, which is in skip's place: y = u * act(gate).
#pragma once

#include "cuda/channels/plan.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

// y in place of u; beside: of skip or of the gate
template <int FINISH, typename T>
__device__ void complete(const Affine<T>& affine, Wide<T>& u, Wide<T> beside) {
  if constexpr (FINISH == kGated) {
    constexpr int FEW = kPack<T> / 2;  // gates at a time: u has its registers meanwhile
#pragma unroll
    for (int first = 0; first < kPack<T>; first += FEW) {
      acc_t<T> gates[FEW];
#pragma unroll
      for (int k = 0; k < FEW; ++k) gates[k] = beside.v[first + k];
      activate(gates, affine.activation, affine.slope);
#pragma unroll
      for (int k = 0; k < FEW; ++k) u.v[first + k] *= gates[k];
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) u.v[k] += beside.v[k];
  if constexpr (FINISH == kActivated) activate(u.v, affine.activation, affine.slope);
}

// du in place of dy. Where a gate's gradient is wanted, it comes in place of u.
template <int FINISH, typename T>
__device__ void through(const Affine<T>& affine, Wide<T>& u, Wide<T> beside, Wide<T>& du, bool wanted) {
  static_assert(FINISH != kPlain, "du is dy there");
  if constexpr (FINISH == kGated) {
    if (wanted) {
      Wide<T> slope = beside;
      differentiate(slope.v, affine.activation, affine.slope);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) u.v[k] *= du.v[k] * slope.v[k];
    }
    activate(beside.v, affine.activation, affine.slope);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) du.v[k] *= beside.v[k];
    return;
  }
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) u.v[k] += beside.v[k];
  differentiate(u.v, affine.activation, affine.slope);
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) du.v[k] *= u.v[k];
}

// ---- host ----

// run(LAST, PACKED, FINISH), each a constant
template <typename T, typename Run>
void with_finish(const Plan& plan, Activation activation, bool gated, Run run) {
  if (gated)
    return with_layout<T>(
        plan, true, [&](auto last, auto packed, auto) { run(last, packed, std::integral_constant<int, kGated>()); });
  with_layout<T>(plan, activation, [&](auto last, auto packed, auto activated) {
    run(last, packed, std::integral_constant<int, activated ? kActivated : kPlain>());
  });
}

}  // namespace normkernels::cuda
