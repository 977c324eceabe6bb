// The RNN with batch norm of each step (Cooijmans et al. 2017, arXiv:1603.09025): the CPU kernels.
#include "checks/recurrent.h"
#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/batch_norm.h"

namespace normkernels {
namespace {

void batch_norm_rnn_fwd(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& batch_sizes, const Tensor& h, const Tensor& y,
                        const Tensor& a, const Tensor& mean, const Tensor& var, bool training, bool separate,
                        const std::string& nonlinearity, double eps, bool reverse) {
  if (!check::batch_norm_rnn_fwd(input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, var, nonlinearity)) return;
  dispatch(input, "batch_norm_rnn_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = h.size(1);
    const Parameter<C> w(weight, 0), b(bias, 0);
    BatchNorm<T> norm(H, eps, training, w.data(), b.data());
    walk_forward(input, weight_hh, batch_sizes, h, a, reverse, [&](const SequenceStep& step, int64_t at) {
      const T* p = pointer<T>(input) + step.first * H;
      T* sums = pointer<T>(a) + at * H;
      C* mu = pointer<C>(mean) + step.t * H;
      if (!separate)
        each_row<C>(step.rows, H, 0,
                    [&](int64_t row, C*) { add_tiles(sums + row * H, p + row * H, sums + row * H, H); });
      norm.prepare(sums, step.rows, mu, pointer<C>(var) + step.t * H);
      each_row<C>(step.rows, H, 2 * H, [&](int64_t row, C* z) {
        norm.affine(sums + row * H, mu, z);
        if (separate) add_widened(p + row * H, z, z + H, H);
        rnn_tile(nonlinearity == "relu", z, z, H);
        store_tile(z, pointer<T>(y) + (step.first + row) * H, H);
        store_tile(z, pointer<T>(h) + row * H, H);
      });
    });
  });
}

void batch_norm_rnn_bwd(const Tensor& dy, const Tensor& y, const Tensor& a, const Tensor& mean, const Tensor& var,
                        const Tensor& weight_hh, const OptionalTensor& weight, const OptionalTensor& batch_sizes,
                        const Tensor& dh, const Tensor& dinput, const OptionalTensor& da, const OptionalTensor& dweight,
                        const OptionalTensor& dbias, bool training, const std::string& nonlinearity, double eps,
                        bool reverse) {
  if (!check::batch_norm_rnn_bwd(dy, y, a, mean, var, weight_hh, weight, batch_sizes, dh, dinput, da, dweight, dbias,
                                 nonlinearity))
    return;
  dispatch(dy, "batch_norm_rnn_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = dh.size(1);
    const Parameter<C> w(weight, 0);
    BatchNorm<T> norm(H, eps, training, w.data(), nullptr);
    GradientTable<C> dw(dweight, 1, H), db(dbias, 1, H);
    const Tensor& sums = da ? *da : dinput;
    Scratch<C> room(dh.numel());
    walk_backward(sums, weight_hh, batch_sizes, dh, reverse, [&](const SequenceStep& step) {
      const int64_t first = step.first * H;
      each_row<C>(step.rows, H, H, [&](int64_t row, C* narrow) {
        C* dz = room.data() + row * H;
        sum_widened(pointer<T>(dy) + first + row * H, pointer<T>(dh) + row * H, dz, narrow, H);
        rnn_backward_tile(nonlinearity == "relu", dz, widened(pointer<T>(y) + first + row * H, narrow, H), dz, H);
        if (da) store_tile(dz, pointer<T>(dinput) + first + row * H, H);
      });
      const C* mu = pointer<C>(mean) + step.t * H;
      norm.scales(pointer<C>(var) + step.t * H);
      norm.backward(room.data(), pointer<T>(a) + first, step.rows, mu, pointer<T>(sums) + first, dw.data(), db.data());
    });
    finish(dw, db);
  });
}

}  // namespace

NK_CPU(batch_norm_rnn_fwd, batch_norm_rnn_fwd)
NK_CPU(batch_norm_rnn_bwd, batch_norm_rnn_bwd)

}  // namespace normkernels
