// The LSTM with batch norm of each step (Cooijmans et al. 2017, arXiv:1603.09025): the CPU kernels.
#include "checks/lstm.h"
#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/batch_norm.h"
#include "cpu/recurrent/lstm.h"

namespace normkernels {
namespace {

void batch_norm_lstm_fwd(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& weight,
                         const OptionalTensor& bias, const OptionalTensor& cell_weight, const OptionalTensor& cell_bias,
                         const OptionalTensor& batch_sizes, const Tensor& h, const Tensor& c, const Tensor& y,
                         const Tensor& a, const Tensor& mean, const Tensor& var, const Tensor& gates,
                         const Tensor& cells, const OptionalTensor& raw_cells, const OptionalTensor& cell_mean,
                         const OptionalTensor& cell_var, bool training, bool separate, double eps, bool reverse) {
  if (!check::batch_norm_lstm_fwd(input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean,
                                  var, gates, cells, raw_cells, cell_mean, cell_var))
    return;
  dispatch(input, "batch_norm_lstm_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = h.size(1), N = 4 * H;
    const Parameter<C> w(weight, 0), b(bias, 0), cw(cell_weight, 0), cb(cell_bias, 0);
    BatchNorm<T> norm(N, eps, training, w.data(), b.data());
    BatchNorm<C> cell_norm(H, eps, training, cw.data(), cb.data());
    const auto lstm = lstm_forward<T>(input, h, y, a, gates, c, cells, raw_cells, cell_mean, separate);
    Scratch<C> o(h.numel());  // output gates of a step, until its cells are normalised
    walk_forward(input, weight_hh, batch_sizes, h, a, reverse, [&](const SequenceStep& step, int64_t at) {
      C *mu = pointer<C>(mean) + step.t * N, *cell_mu = lstm.normed ? pointer<C>(cell_mean) + step.t * H : nullptr;
      each_row<C>(step.rows, N, 0, [&](int64_t row, C*) { lstm.sum(step.first + row, at + row); });
      norm.prepare(lstm.a + at * N, step.rows, mu, pointer<C>(var) + step.t * N);
      each_row<C>(step.rows, N, 2 * N, [&](int64_t row, C* room) {
        C* z = lstm.sums(at + row, room);
        norm.affine(lstm.a + (at + row) * N, mu, z);
        lstm.gate(row, step.first + row, at + row, z, room + N);
        std::copy(z + 3 * H, z + N, o.data() + row * H);
      });
      if (lstm.normed) cell_norm.prepare(lstm.cell(at), step.rows, cell_mu, pointer<C>(cell_var) + step.t * H);
      each_row<C>(step.rows, H, H, [&](int64_t row, C* out) {
        if (lstm.normed) cell_norm.affine(lstm.cell(at + row), cell_mu, out);
        lstm.output(row, step.first + row, at + row, o.data() + row * H, lstm.normed ? out : lstm.cell(at + row), out);
      });
    });
  });
}

void batch_norm_lstm_bwd(const Tensor& dy, const Tensor& gates, const Tensor& cells, const OptionalTensor& raw_cells,
                         const OptionalTensor& cell_mean, const OptionalTensor& cell_var, const Tensor& previous_cells,
                         const Tensor& a, const Tensor& mean, const Tensor& var, const Tensor& weight_hh,
                         const OptionalTensor& weight, const OptionalTensor& cell_weight,
                         const OptionalTensor& cell_bias, const OptionalTensor& batch_sizes, const Tensor& dh,
                         const Tensor& dc, const Tensor& dinput, const OptionalTensor& da,
                         const OptionalTensor& dweight, const OptionalTensor& dbias, const OptionalTensor& dcell_weight,
                         const OptionalTensor& dcell_bias, bool training, double eps, bool reverse) {
  if (!check::batch_norm_lstm_bwd(dy, gates, cells, raw_cells, cell_mean, cell_var, previous_cells, a, mean, var,
                                  weight_hh, weight, cell_weight, cell_bias, batch_sizes, dh, dc, dinput, da, dweight,
                                  dbias, dcell_weight, dcell_bias))
    return;
  dispatch(dy, "batch_norm_lstm_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t B = dh.size(0), H = dh.size(1), N = 4 * H;
    const Parameter<C> w(weight, 0), cw(cell_weight, 0), cb(cell_bias, 0);
    BatchNorm<T> norm(N, eps, training, w.data(), nullptr);
    BatchNorm<C> cell_norm(H, eps, training, cw.data(), cb.data());
    GradientTable<C> dw(dweight, 1, N), db(dbias, 1, N), dcw(dcell_weight, 1, H), dcb(dcell_bias, 1, H);
    const Tensor& sums = da ? *da : dinput;
    const auto lstm = lstm_backward<T>(dy, gates, cells, raw_cells, previous_cells, dh, dinput, sums, dc, cell_mean);
    Scratch<C> dzs(B * N), dms(B * H);
    walk_backward(sums, weight_hh, batch_sizes, dh, reverse, [&](const SequenceStep& step) {
      const int64_t first = step.first;
      C *mu = pointer<C>(mean) + step.t * N, *cell_mu = lstm.normed ? pointer<C>(cell_mean) + step.t * H : nullptr;
      if (lstm.normed) cell_norm.scales(pointer<C>(cell_var) + step.t * H);
      each_row<C>(step.rows, N, 4 * H, [&](int64_t row, C* m) {
        const C *o = widened(lstm.gates + (first + row) * N + 3 * H, m + H, H),
                *inside = lstm.cells + (first + row) * H;
        if (lstm.normed && !lstm.raw) {
          cell_norm.affine(lstm.cell(first + row), cell_mu, m);
          inside = m;
        }
        lstm.output(row, first + row, o, inside, dms.data() + row * H, dzs.data() + row * N + 3 * H, m + 2 * H);
      });
      if (lstm.normed)
        cell_norm.backward(dms.data(), lstm.cell(first), step.rows, cell_mu, dms.data(), dcw.data(), dcb.data());
      each_row<C>(step.rows, N, N, [&](int64_t row, C* narrow) {
        C* dcell = dms.data() + row * H;
        if (!lstm.joins_before()) add_tiles(dcell, lstm.dc + row * H, dcell, H);
        const C* gate = widened(lstm.gates + (first + row) * N, narrow, N);
        lstm.gate(row, first + row, gate, dcell, dzs.data() + row * N);
        if (da) store_tile(dzs.data() + row * N, lstm.dinput + (first + row) * N, N);
      });
      norm.scales(pointer<C>(var) + step.t * N);
      norm.backward(dzs.data(), pointer<T>(a) + first * N, step.rows, mu, lstm.da + first * N, dw.data(), db.data());
    });
    finish(dw, db, dcw, dcb);
  });
}

}  // namespace

NK_CPU(batch_norm_lstm_fwd, batch_norm_lstm_fwd)
NK_CPU(batch_norm_lstm_bwd, batch_norm_lstm_bwd)

}  // namespace normkernels
