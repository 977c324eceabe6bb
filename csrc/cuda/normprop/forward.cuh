// Normalization Propagation's epilogue: y = scale * act(u + bias) + shift.
#pragma once

#include "cuda/normprop/normprop.cuh"

namespace normkernels::cuda {

template <typename T>
struct NormpropForward {
  Plan plan;
  const T* u;
  Parameter bias, slope;
  Epilogue<acc_t<T>> epilogue;
  T* y;  // may be u
};

// ANY: also activations that are not in pieces.
template <typename T, bool LAST, bool PACKED, bool ANY, bool PRELU>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1) normprop_forward_kernel(const NormpropForward<T> p) {
  using A = acc_t<T>;
  const Epilogue<A>& e = p.epilogue;
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const Channels<T, LAST, PACKED, PRELU> of(walk, e, p.bias, p.slope);
  walk.template sweep<!ANY>({p.u}, [&](int i, const Pack<T>(&packs)[1]) {
    Wide<T> f = widen<T>(packs[0]);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) f.v[k] += of.bias.v[k];
    if (ANY && !e.pieces) {
      activate(f.v, e.activation, e.leak);
    } else {
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k)  // 0 times -inf is 0
        if (f.v[k] < 0) f.v[k] = of.outer.v[k] == 0 ? A(0) : f.v[k] * of.outer.v[k];
    }
    walk.store(p.y, i, Wide<T>::of([&](int k) {
                 const A y = f.v[k] * of.scale.v[k] + of.shift.v[k];
                 return f.v[k] > e.kink_low && f.v[k] < e.kink_high ? clamp(y, e.low, e.high) : y;
               }));
  });
}

// ---- host ----

template <typename T>
void normprop_forward(const NormpropForward<T>& p, const Device& device) {
  with_epilogue<T>(p, [&](auto last, auto packed, auto any, auto prelu) {
    launch_sweep<T>(normprop_forward_kernel<T, last, packed, any, prelu>, p, device);
  });
}

}  // namespace normkernels::cuda
