// Batch, group and instance norm forward: the sweeps of the channel family with nothing between them.
#include "checks/channels.h"
#include "cpu/channels/norm.h"

namespace normkernels {

void channels_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight, const OptionalTensor& bias,
                  const Tensor& y, const Tensor& mean, const Tensor& var, double eps, const std::string& name,
                  double slope, bool last) {
  constexpr const char* kOp = "batch, group or instance_norm_fwd";
  const check::Epilogue end(kOp, name, skip);
  if (!check::channels_fwd(kOp, x, skip, weight, bias, y, mean, var, last)) return;
  const Given given = {x, skip, weight, bias, mean, var, eps, end.activation, slope, last, end.gated};
  with_channels(given, [&]<class T>(const Channels<T>& channels) {
    forward(Forward<T>{.of = channels, .y = pointer<T>(y)}, last);
  });
}

void channels_apply(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                    const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& y, double eps,
                    const std::string& name, double slope, bool last) {
  const check::Epilogue end("batch_norm_apply", name, skip);
  if (!check::channels_apply("batch_norm_apply", x, skip, weight, bias, mean, var, y, last)) return;
  const Given given = {x, skip, weight, bias, mean, var, eps, end.activation, slope, last, end.gated};
  with_channels(given, [&]<class T>(const Channels<T>& channels) {
    forward(Forward<T>{.of = channels, .y = pointer<T>(y), .training = false}, last);
  });
}

void channels_moments(const Tensor& x, const Tensor& mean, const Tensor& var, bool last) {
  if (!check::channels_fwd("batch_norm_moments", x, std::nullopt, std::nullopt, std::nullopt, std::nullopt, mean, var,
                           last))
    return;
  with_channels({.x = x, .mean = mean, .var = var, .channels_last = last},
                [&]<class T>(const Channels<T>& channels) { forward(Forward<T>{.of = channels, .y = nullptr}, last); });
}

}  // namespace normkernels
