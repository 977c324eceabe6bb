// Batch, group and instance norm: the sweeps of the channel family with nothing between them.
#include "checks/channels.h"
#include "cpu/base/gradient_table.h"
#include "cpu/channels/norm.h"

namespace normkernels {

void channels_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight, const OptionalTensor& bias,
                  const Tensor& y, const Tensor& mean, const Tensor& var, double eps, const std::string& name,
                  double slope, bool last) {
  if (!check::channels_fwd("batch, group or instance_norm_fwd", x, skip, weight, bias, y, mean, var, last)) return;
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, pointer<T>(y), true}, last);
  });
}

void channels_apply(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& y, double eps,
                    const std::string& name, double slope, bool last) {
  if (!check::channels_apply("batch_norm_apply", x, skip, weight, bias, mean, var, y, last)) return;
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, pointer<T>(y), false}, last);
  });
}

void channels_moments(const Tensor& x, const Tensor& mean, const Tensor& var, bool last) {
  if (!check::channels_fwd("batch_norm_moments", x, std::nullopt, std::nullopt, std::nullopt, std::nullopt, mean, var,
                           last))
    return;
  with_channels({x, {}, {}, {}, mean, var, 0, "identity", 0, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    forward(Forward<T>{channels, nullptr, true}, last);
  });
}

void channels_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                  const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& dx,
                  const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias, double eps,
                  bool training, const std::string& name, double slope, bool last) {
  if (!check::channels_bwd("batch, group or instance_norm_bwd", dy, x, skip, weight, bias, mean, var, dx, dskip,
                           dweight, dbias, last))
    return;
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
  if (!check::batch_norm_sums(dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, last)) return;
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
  if (!check::batch_norm_dx(dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, last)) return;
  with_channels({x, skip, weight, bias, mean, var, eps, name, slope, last}, [&](const auto& channels) {
    using T = type_of<std::decay_t<decltype(channels)>>;
    using C = compute_t<T>;
    backward(Backward<T>{channels, pointer<T>(dy), pointer<T>(dx), pointer<T>(dskip), true, pointer<C>(mean_dy),
                         pointer<C>(mean_dy_xhat), nullptr, nullptr},
             last);
  });
}

}  // namespace normkernels
