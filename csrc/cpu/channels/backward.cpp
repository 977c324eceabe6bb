// Batch, group and instance norm backward: the sweeps of the channel family with nothing between them.
#include "checks/channels.h"
#include "cpu/base/gradient_table.h"
#include "cpu/channels/norm_backward.h"

namespace normkernels {

void channels_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                  const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& dx,
                  const OptionalTensor& dskip, const OptionalTensor& dweight, const OptionalTensor& dbias, double eps,
                  bool training, const std::string& name, double slope, bool last) {
  constexpr const char* kOp = "batch, group or instance_norm_bwd";
  const check::Epilogue end(kOp, name, skip);
  if (!check::channels_bwd(kOp, dy, x, skip, weight, bias, mean, var, dx, dskip, dweight, dbias, last)) return;
  const Given given = {x, skip, weight, bias, mean, var, eps, end.activation, slope, last, end.gated};
  with_channels(given, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    const Grid& g = channels.grid;  // a line of whose channels is one for each image
    const int64_t lines = chunks(g) * channels.together, C1 = g.C / channels.together;
    GradientTable<C> dw(dweight, lines, C1), db(dbias, lines, C1);
    backward(Backward<T>{.of = channels,
                         .dy = pointer<T>(dy),
                         .dx = pointer<T>(dx),
                         .dskip = pointer<T>(dskip),
                         .training = training,
                         .dweight = dw.data(),
                         .dbias = db.data()},
             last);
    finish(dw, db);
  });
}

void channels_sums(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                   const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& sum_dy,
                   const Tensor& sum_dy_xhat, double eps, const std::string& name, double slope, bool last) {
  const check::Epilogue end("batch_norm_sums", name, skip);
  if (!check::batch_norm_sums(dy, x, skip, weight, bias, mean, var, sum_dy, sum_dy_xhat, last)) return;
  const Given given = {x, skip, weight, bias, mean, var, eps, end.activation, slope, last, end.gated};
  with_channels(given, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    std::fill_n(pointer<C>(sum_dy), channels.grid.C, C(0));
    std::fill_n(pointer<C>(sum_dy_xhat), channels.grid.C, C(0));
    backward(Backward<T>{.of = channels,
                         .dy = pointer<T>(dy),
                         .training = false,
                         .dweight = pointer<C>(sum_dy_xhat),
                         .dbias = pointer<C>(sum_dy)},
             last);
  });
}

void channels_dx(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                 const OptionalTensor& bias, const Tensor& mean, const Tensor& var, const Tensor& mean_dy,
                 const Tensor& mean_dy_xhat, const Tensor& dx, const OptionalTensor& dskip, double eps,
                 const std::string& name, double slope, bool last) {
  const check::Epilogue end("batch_norm_dx", name, skip);
  if (!check::batch_norm_dx(dy, x, skip, weight, bias, mean, var, mean_dy, mean_dy_xhat, dx, dskip, last)) return;
  const Given given = {x, skip, weight, bias, mean, var, eps, end.activation, slope, last, end.gated};
  with_channels(given, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    backward(Backward<T>{.of = channels,
                         .dy = pointer<T>(dy),
                         .dx = pointer<T>(dx),
                         .dskip = pointer<T>(dskip),
                         .mean_dy = pointer<C>(mean_dy),
                         .mean_dy_xhat = pointer<C>(mean_dy_xhat)},
             last);
  });
}

}  // namespace normkernels
