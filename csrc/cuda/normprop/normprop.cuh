// What both passes of Normalization Propagation's epilogue share: y = scale * act(u + bias) + shift, per channel. An
// activation in pieces has two constant slopes; prelu's differ by channel, and its scale and shift follow from them.
#pragma once

#include "cuda/channels/walk.cuh"

namespace normkernels::cuda {

inline constexpr double kInversePi = 0.31830988618379067154;

template <typename A>
struct Epilogue {
  Activation activation;
  bool pieces;                    // forward and backward from u: with one kink, at 0
  A inner, outer;                 // slopes of the pieces: between the kinks, or above 0, and elsewhere
  A leak, scale, shift, unscale;  // unscale: 1 / scale
  A kink_low, kink_high;          // of act(u)
  A low, high;                    // of y where act(u) lies between those
  bool from_output;
};

// What a thread needs of its channels. PRELU: also where the slopes are theirs.
template <typename T, bool LAST, bool PACKED, bool PRELU>
struct Channels {
  using A = acc_t<T>;
  Wide<T> bias, outer, scale, shift;

  __device__ Channels(const Walk<T, LAST, PACKED>& walk, const Epilogue<A>& e, Parameter bias_of, Parameter slope)
      : bias(walk.bias({{}, bias_of})),
        outer(Wide<T>::of([&](int) { return e.outer; })),
        scale(Wide<T>::of([&](int) { return e.scale; })),
        shift(Wide<T>::of([&](int) { return e.shift; })) {
    if (!PRELU || slope.data == nullptr) return;
    outer = walk.weight({slope});
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      const A a = outer.v[k], rest = A(1) - a;
      scale.v[k] = rsqrt((A(1) + a * a - rest * rest * A(kInversePi)) * A(0.5));
      shift.v[k] = -rest * A(kDensityAtZero) * scale.v[k];
    }
  }
};

// ---- host ----

// Without what only the forward knows: the kinks. prelu is an identity with slopes.
template <typename A>
Epilogue<A> make_epilogue(const char* name, double leak, double scale, double shift, double low, double high,
                          bool from_output) {
  using Act = Activation;
  const Act act = std::strcmp(name, "prelu") == 0 ? Act::kIdentity : find_activation(name);
  const bool one_kink = act == Act::kIdentity || act == Act::kRelu || act == Act::kLeakyRelu;
  const bool two_kinks = act == Act::kRelu6 || act == Act::kHardtanh || act == Act::kHardsigmoid;
  Epilogue<A> e{act, one_kink || (from_output && two_kinks)};
  e.inner = act == Act::kHardsigmoid ? 1.0 / 6 : 1.0;
  e.outer = act == Act::kIdentity ? 1.0 : act == Act::kLeakyRelu ? leak : 0.0;
  e.leak = leak, e.scale = scale, e.shift = shift, e.unscale = 1 / scale, e.low = low, e.high = high;
  e.from_output = from_output;
  return e;
}

// run(LAST, PACKED, ANY, PRELU), each a std::bool_constant; in packs for no more than what is asked
template <typename T, typename Params, typename Run>
void with_epilogue(const Params& p, Run run) {
  with_layout<T>(p.plan, !p.epilogue.pieces, [&](auto last, auto packed, auto any) {
    if constexpr (packed && !any)
      if (p.slope.data != nullptr) return run(last, packed, any, std::true_type());
    run(last, packed, any, std::bool_constant<!packed>());
  });
}

}  // namespace normkernels::cuda
