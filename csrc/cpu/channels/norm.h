// From tensors to the sweeps of the channel family, forward; members put rules of their own between them.
#pragma once

#include "cpu/base/tensors.h"
#include "cpu/channels/channels_last.h"
#include "cpu/channels/planes.h"

namespace normkernels {

inline Grid grid(const Tensor& x, const OptionalTensor& mean, bool last) {
  const int64_t C = x.size(last ? 2 : 1), B = mean && mean->dim() == 2 ? mean->size(0) : 1;
  return {x.size(0), C, x.size(last ? 1 : 2), B, mean ? mean->numel() / B : C};
}

inline const OptionalTensor kAbsent;

// The arguments that every op has.
struct Given {
  const Tensor& x;
  const OptionalTensor &skip = kAbsent, &weight = kAbsent, &bias = kAbsent;
  const OptionalTensor mean, var;  // (B, G), or absent: (1, C) that nobody else sees
  double eps = 0;
  const std::string activation = "identity";
  double slope = 0;
  bool channels_last;
};

// Call f with the parameters in the compute type and everything else of Channels<T>.
template <class F>
void with_channels(const Given& g, const F& f) {
  dispatch(g.x, "channels", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Grid z = grid(g.x, g.mean, g.channels_last);
    const Parameter<C> w(g.weight, 0), b(g.bias, 0);
    const int64_t count = z.B * z.G;
    Scratch<C> scratch((g.mean ? 2 : 4) * count);
    C *rstd = scratch.data(), *shift = rstd + count, *mean = g.mean ? pointer<C>(g.mean) : shift + count;
    C* var = g.var ? pointer<C>(g.var) : shift + 2 * count;
    f(Channels<T>{.grid = z,
                  .x = pointer<T>(g.x),
                  .skip = pointer<T>(g.skip),
                  .affine = affine(w, b, g.activation, g.slope),
                  .mean = mean,
                  .var = var,
                  .rstd = rstd,
                  .eps = g.eps,
                  .shift = shift});
  });
}

template <class T>
using type_of = std::remove_cv_t<std::remove_pointer_t<decltype(T::x)>>;

// With rstd given where mean is
template <class T>
void sweep_forward(Forward<T> a, bool last) {
  if (const int64_t run = tiny_planes(a.of.grid, last)) {
    a.of.grid = one_image(a.of.grid);
    return forward_channels_last(a, run);
  }
  last ? forward_channels_last(a) : forward_planes(a);
}

template <class T>
void forward(const Forward<T>& a, bool last) {
  if (!a.training) a.of.find_rstd(0, a.of.grid.B * a.of.grid.G);
  sweep_forward(a, last);
}

// From the compute type, if it is wanted, to a tensor of any dtype.
template <class C>
void store_values(const Scratch<C>& values, const OptionalTensor& t) {
  if (!t) return;
  dispatch(*t, "channels", [&](auto element) {
    using W = decltype(element);
    for (size_t i = 0; i < values.size(); i++) pointer<W>(*t)[i] = store<W>(static_cast<compute_t<W>>(values[i]));
  });
}

}  // namespace normkernels
