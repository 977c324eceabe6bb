// From tensors to the sweeps of the channel family, for members that put a rule of their own between them.
#pragma once

#include "cpu/channels/channels_last_backward.h"
#include "cpu/channels/ops.h"
#include "cpu/channels/planes_backward.h"

namespace normkernels {

inline Grid grid(const Tensor& x, const OptionalTensor& mean, bool last) {
  const int64_t C = x.size(last ? 2 : 1), B = mean && mean->dim() == 2 ? mean->size(0) : 1;
  return {x.size(0), C, x.size(last ? 1 : 2), B, mean ? mean->numel() / B : C};
}

// The arguments that every op has.
struct Given {
  const Tensor& x;
  const OptionalTensor &skip, &weight, &bias;
  const OptionalTensor mean, var;  // (B, G), or absent: (1, C) that nobody else sees
  double eps;
  const std::string& activation;
  double slope;
  bool last;
};

// Call f with the parameters in the compute type and everything else of Channels<T>.
template <class F>
void with_channels(const Given& g, const F& f) {
  dispatch(g.x, "channels", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const Grid z = grid(g.x, g.mean, g.last);
    const Parameter<C> w(g.weight, 0), b(g.bias, 0);
    const int64_t count = z.B * z.G;
    Scratch<C> scratch((g.mean ? 2 : 4) * count);
    C *rstd = scratch.data(), *shift = rstd + count, *mean = g.mean ? pointer<C>(g.mean) : shift + count;
    C* var = g.var ? pointer<C>(g.var) : shift + 2 * count;
    const Affine<C> affine = {w.data(), b.data(), activation(g.activation), static_cast<C>(g.slope)};
    f(Channels<T>{z, pointer<T>(g.x), pointer<T>(g.skip), affine, mean, var, rstd, g.eps, shift});
  });
}

template <class T>
void forward(Forward<T> a, bool last) {
  if (!a.training) a.find_rstd(0, a.grid.B * a.grid.G);
  if (const int64_t run = tiny_planes(a.grid, last)) {
    a.grid = one_image(a.grid);
    return forward_pixels(a, run);
  }
  last ? forward_pixels(a) : forward_planes(a);
}

template <class T>
void backward(Backward<T> a, bool last) {
  a.find_rstd(0, a.grid.B * a.grid.G);
  if (const int64_t run = tiny_planes(a.grid, last); run && (run < kFewLanes || !small(a))) {
    a.grid = one_image(a.grid);
    return backward_pixels(a, run);
  }
  last ? backward_pixels(a) : backward_planes(a);
}

template <class T>
using type_of = std::remove_cv_t<std::remove_pointer_t<decltype(T::x)>>;

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
