// The RNN with layer norm (Ba et al. 2016, arXiv:1607.06450): the CPU kernels.
#include "checks/recurrent.h"
#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/layer_norm.h"

namespace normkernels {
namespace {

void layer_norm_rnn_fwd(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& batch_sizes, const Tensor& h, const Tensor& y,
                        const Tensor& a, const Tensor& mean, const Tensor& rstd, bool separate,
                        const std::string& nonlinearity, double eps, bool reverse) {
  if (!check::layer_norm_rnn_fwd(input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, nonlinearity))
    return;
  dispatch(input, "layer_norm_rnn_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = h.size(1);
    const Parameter<C> w(weight, 0), b(bias, 0);
    const LayerNorm<T> norm({1}, H, eps, w.data(), b.data());
    walk_forward(input, weight_hh, batch_sizes, h, a, reverse, [&](const SequenceStep& step, int64_t at) {
      each_row<C>(step.rows, H, 2 * H, [&](int64_t row, C* room) {
        C* z = made_at(pointer<T>(y) + (step.first + row) * H, room);
        const T* p = pointer<T>(input) + (step.first + row) * H;
        T* sums = pointer<T>(a) + (at + row) * H;
        if (!separate) add_tiles(sums, p, sums, H);
        norm.forward(sums, pointer<C>(mean) + at + row, pointer<C>(rstd) + at + row, z);
        if (separate) add_widened(p, z, room + H, H);
        rnn_tile(nonlinearity == "relu", z, z, H);
        store_made(z, pointer<T>(y) + (step.first + row) * H, H);
        store_tile(z, pointer<T>(h) + row * H, H);
      });
    });
  });
}

void layer_norm_rnn_bwd(const Tensor& dy, const Tensor& y, const Tensor& a, const Tensor& mean, const Tensor& rstd,
                        const Tensor& weight_hh, const OptionalTensor& weight, const OptionalTensor& batch_sizes,
                        const Tensor& dh, const Tensor& dinput, const OptionalTensor& da, const OptionalTensor& dweight,
                        const OptionalTensor& dbias, const std::string& nonlinearity, bool reverse) {
  if (!check::layer_norm_rnn_bwd(dy, y, a, mean, rstd, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias,
                                 nonlinearity))
    return;
  dispatch(dy, "layer_norm_rnn_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = dh.size(1);
    const Parameter<C> w(weight, 0);
    const LayerNorm<T> norm({1}, H, 0, w.data(), nullptr);
    const Parts parts{dh.size(0)};
    GradientTable<C> dw(dweight, parts.count(), H), db(dbias, parts.count(), H);
    const Tensor& sums = da ? *da : dinput;
    walk_backward(sums, weight_hh, batch_sizes, dh, reverse, [&](const SequenceStep& step) {
      each_row_of_parts<C>(parts, step.rows, H, 2 * H, [&](int64_t row, int64_t line, C* room) {
        const int64_t in = step.first + row;
        C *dz = made_at(pointer<T>(dinput) + in * H, room), *narrow = room + H;
        sum_widened(pointer<T>(dy) + in * H, pointer<T>(dh) + row * H, dz, narrow, H);
        rnn_backward_tile(nonlinearity == "relu", dz, widened(pointer<T>(y) + in * H, narrow, H), dz, H);
        if (da) store_made(dz, pointer<T>(dinput) + in * H, H);
        norm.backward(dz, pointer<T>(a) + in * H, pointer<C>(mean) + in, pointer<C>(rstd) + in, nullptr,
                      pointer<T>(sums) + in * H, dw.line(line), db.line(line));
      });
    });
    finish(dw, db);
  });
}

}  // namespace

NK_CPU(layer_norm_rnn_fwd, layer_norm_rnn_fwd)
NK_CPU(layer_norm_rnn_bwd, layer_norm_rnn_bwd)

}  // namespace normkernels
