// From tensors to the sweeps of the channel family, forward; members put rules of their own between them.
#pragma once

#include "cpu/base/tensors.h"
#include "cpu/channels/channels_last.h"
#include "cpu/channels/one_position.h"
#include "cpu/channels/planes.h"

namespace normkernels {

inline Grid grid(const Tensor& x, const OptionalTensor& mean, bool last) {
  const int64_t C = x.size(last ? 2 : 1), B = mean && mean->dim() == 2 ? mean->size(0) : 1;
  return {x.size(0), C, x.size(last ? 1 : 2), B, mean ? mean->numel() / B : C};
}

// The arguments that every op has.
struct Given {
  const Tensor& x;
  const OptionalTensor &skip = kAbsent, &weight = kAbsent, &bias = kAbsent;
  const OptionalTensor mean, var;  // (B, G), or absent: (1, C) that nobody else sees
  double eps = 0;
  const std::string activation = "identity";
  double slope = 0;
  bool channels_last;
  bool gated = false;  // skip is not added: it is what the activation is given, and multiplies u
};

// A parameter of each channel, or null, so many times: for images that are taken as one.
template <class C>
Scratch<C> repeated(const C* values, int64_t channels, int64_t images) {
  Scratch<C> all(values && images > 1 ? channels * images : 0);
  for (size_t at = 0; at < all.size(); at += channels) std::copy_n(values, channels, &all[at]);
  return all;
}

// Call f with the parameters in the compute type and everything else of Channels<T>.
template <class F>
void with_channels(const Given& g, const F& f) {
  const GivenAffine given = {g.weight, g.bias, 0, g.activation, g.slope};
  with_affine(g.x, "channels", given, [&]<class T>(T, const Affine<compute_t<T>>& affine) {
    using C = compute_t<T>;
    const Grid z = grid(g.x, g.mean, g.channels_last);
    const int64_t count = z.B * z.G;
    Scratch<C> scratch((g.mean ? 2 : 4) * count);
    C *rstd = scratch.data(), *shift = rstd + count, *mean = g.mean ? pointer<C>(g.mean) : shift + count;
    C* var = g.var ? pointer<C>(g.var) : shift + 2 * count;
    const int64_t images = images_at_once(z, g.channels_last);
    const Scratch<C> weight = repeated(affine.weight, z.C, images), bias = repeated(affine.bias, z.C, images);
    Affine<C> of_all = affine;
    if (!weight.empty()) of_all.weight = weight.data();
    if (!bias.empty()) of_all.bias = bias.data();
    f(Channels<T>{.grid = wider(z, images),
                  .x = pointer<T>(g.x),
                  .skip = g.gated ? nullptr : pointer<T>(g.skip),
                  .affine = of_all,
                  .mean = mean,
                  .var = var,
                  .rstd = rstd,
                  .eps = g.eps,
                  .shift = shift,
                  .together = images,
                  .opener = g.gated ? pointer<T>(g.skip) : nullptr});
  });
}

// With rstd given where mean is. Planes of a few vectors are quicker as planes: their columns fit in no cache.
template <class T>
void sweep_forward(Forward<T> a, bool last) {
  if (groups_are_rows(a.of)) return forward_groups(a);
  if (const int64_t run = tiny_planes(a.of.grid, last); run && run < (sizeof(T) == 2 ? 2 : 1) * kFewLanes) {
    a.of.grid = one_image(a.of.grid);
    return forward_channels_last(a, run);
  }
  lies_last(a.of.grid, last) ? forward_channels_last(a) : forward_planes(a);
}

template <class T>
void forward(const Forward<T>& a, bool last) {
  if (!a.training) a.of.find_rstd(0, a.of.grid.B * a.of.grid.G);
  sweep_forward(a, last);
}

// Batch, group and instance norm as ops on tensors; they differ only in the shape of mean and var.
void channels_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight, const OptionalTensor& bias,
                  const Tensor& y, const Tensor& mean, const Tensor& var, double eps, const std::string& activation,
                  double slope, bool channels_last);

void channels_apply(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& y, double eps,
                    const std::string& activation, double slope, bool channels_last);

void channels_moments(const Tensor& x, const Tensor& mean, const Tensor& var, bool channels_last);

void channels_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                  const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& dx,
                  const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias, double eps,
                  bool training, const std::string& activation, double slope, bool channels_last);

void channels_sums(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                   const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& sum_dy,
                   const Tensor& sum_dy_xhat, double eps, const std::string& activation, double slope,
                   bool channels_last);

void channels_dx(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                 const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& mean_dy,
                 const Tensor& mean_dy_xhat, const Tensor& dx, const OptionalTensor& dskip, double eps,
                 const std::string& activation, double slope, bool channels_last);

}  // namespace normkernels
