// NormProp's epilogue (Arpit et al. 2016, arXiv:1603.01431): the CPU kernels.
#include "checks/channel_rules.h"
#include "cpu/channels/norm.h"
#include "cpu/normprop/backward.h"

namespace normkernels {
namespace {

// With what the name says of it
Epilogue named(const std::string& name, Epilogue e) {
  e.prelu = name == "prelu";
  e.activation = e.prelu ? Activation::identity : activation(name);
  return e;
}

void normprop_fwd(const Tensor& u, const OptionalTensor& bias, const OptionalTensor& slope, const Tensor& y,
                  const std::string& name, double leak, double scale, double shift, double kink_low, double kink_high,
                  double low, double high, bool channels_last) {
  if (!check::normprop_fwd(u, bias, slope, y, name, channels_last)) return;
  const Epilogue e = named(name, {.leak = leak,
                                  .scale = scale,
                                  .shift = shift,
                                  .kink_low = kink_low,
                                  .kink_high = kink_high,
                                  .low = low,
                                  .high = high});
  const Places places(grid(u, {}, channels_last), channels_last, bias || slope);
  dispatch(u, "normprop_fwd", [&](auto element) {
    using T = decltype(element);
    const Parameter<compute_t<T>> b(bias, 0), a(slope, 0);
    forward(places, NormPropForward<T>(places, pointer<T>(u), b.data(), a.data(), pointer<T>(y), e));
  });
}

void normprop_bwd(const Tensor& dy, const Tensor& saved, const OptionalTensor& bias, const OptionalTensor& slope,
                  const Tensor& du, const OptionalTensor& dbias, const OptionalTensor& dslope, const std::string& name,
                  double leak, double scale, double shift, double low, double high, bool from_output,
                  bool channels_last) {
  if (!check::normprop_bwd(dy, saved, bias, slope, du, dbias, dslope, name, channels_last)) return;
  const Epilogue e = named(name, {.leak = leak, .scale = scale, .shift = shift, .low = low, .high = high});
  const Places places(grid(dy, {}, channels_last), channels_last, bias || slope || dbias);
  dispatch(dy, "normprop_bwd", [&](auto element) {
    using T = decltype(element);
    const Parameter<compute_t<T>> b(bias, 0), a(slope, 0);
    const auto sums = backward(places, NormPropBackward<T>(places, pointer<T>(dy), pointer<T>(saved), b.data(),
                                                           a.data(), pointer<T>(du), e, from_output));
    Scratch<double> of_bias, of_slope;
    for (const auto [s, t] : sums) of_bias.push_back(s), of_slope.push_back(t);
    store_values(of_bias, dbias);
    store_values(of_slope, dslope);
  });
}

}  // namespace

NK_CPU(normprop_fwd, normprop_fwd)
NK_CPU(normprop_bwd, normprop_bwd)

}  // namespace normkernels
