// From tensors to the sweeps of the channel family.
#include "channel_ops.h"

#include "pixels_backward.h"
#include "planes_backward.h"

namespace normkernels {
namespace {

Grid grid(const Tensor& x, const Tensor& mean, bool last) {
  return {x.size(0), x.size(last ? 2 : 1), x.size(last ? 1 : 2), mean.size(0), mean.numel() / mean.size(0)};
}

// The arguments that every op has.
struct Given {
  const Tensor& x;
  const OptionalTensor &skip, &weight, &bias;
  const Tensor &mean, &var;
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
    const Parameter<C> w(g.weight, 0), b(g.bias, 0);
    const std::unique_ptr<C[]> rstd(new C[g.mean.numel()]);
    f(Channels<T>{grid(g.x, g.mean, g.last),
                  pointer<T>(g.x),
                  pointer<T>(g.skip),
                  {w.data(), b.data(), activation(g.activation), static_cast<C>(g.slope)},
                  pointer<C>(g.mean),
                  pointer<C>(g.var),
                  rstd.get(),
                  g.eps});
  });
}

// Planes of a batch too small for loops of their own: those of an image are one line, and the batch is one image.
int64_t tiny_planes(const Grid& g, bool last) {
  return !last && g.B == 1 && g.N > 1 && g.G == g.C && g.S <= 64 && g.C * g.S <= 1 << 15 ? g.S : 0;
}
Grid one_image(const Grid& g) { return {1, g.C, g.N * g.S, 1, g.C}; }

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
  if (const int64_t run = tiny_planes(a.grid, last)) {
    a.grid = one_image(a.grid);
    return backward_pixels(a, run);
  }
  last ? backward_pixels(a) : backward_planes(a);
}

template <class T>
using type_of = std::remove_cv_t<std::remove_pointer_t<decltype(T::x)>>;

}  // namespace

void channels_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight, const OptionalTensor& bias,
                  const Tensor& y, const Tensor& mean, const Tensor& var, double eps, const std::string& name,
                  double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, pointer<T>(y), true}, last);
  });
}

void channels_apply(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& y, double eps,
                    const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, pointer<T>(y), false}, last);
  });
}

void channels_moments(const Tensor& x, const Tensor& mean, const Tensor& var, bool last) {
  with_channels({x, {}, {}, {}, mean, var, 0, "identity", 0, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, nullptr, true}, last);
  });
}

void channels_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                  const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& dx,
                  const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias, double eps,
                  bool training, const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    const int64_t lines = last ? chunks(channels.grid.N) : channels.grid.B;
    GradientTable<C> dw(dweight, lines, channels.grid.C), db(dbias, lines, channels.grid.C);
    backward(Backward<T>{channels, pointer<T>(dy), pointer<T>(dx), pointer<T>(dskip), training, nullptr, nullptr,
                         dw.data(), db.data()},
             last);
    dw.finish();
    db.finish();
  });
}

void channels_sums(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                   const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& sum_dy,
                   const Tensor& sum_dy_xhat, double eps, const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    std::fill_n(pointer<C>(sum_dy), channels.grid.C, C(0));
    std::fill_n(pointer<C>(sum_dy_xhat), channels.grid.C, C(0));
    backward(Backward<T>{channels, pointer<T>(dy), nullptr, nullptr, false, nullptr, nullptr, pointer<C>(sum_dy_xhat),
                         pointer<C>(sum_dy)},
             last);
  });
}

void channels_dx(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                 const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& mean_dy,
                 const Tensor& mean_dy_xhat, const Tensor& dx, const OptionalTensor& dskip, double eps,
                 const std::string& name, double slope, bool last) {
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    backward(Backward<T>{channels, pointer<T>(dy), pointer<T>(dx), pointer<T>(dskip), true, pointer<C>(mean_dy),
                         pointer<C>(mean_dy_xhat), nullptr, nullptr},
             last);
  });
}

}  // namespace normkernels
