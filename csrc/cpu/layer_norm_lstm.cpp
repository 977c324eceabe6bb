// The LSTM with layer norm (Ba et al. 2016, arXiv:1607.06450): the CPU kernels.
#include "checks/lstm.h"
#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/lstm.h"

namespace normkernels {
namespace {

void layer_norm_lstm_fwd(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& weight,
                         const OptionalTensor& bias, const OptionalTensor& cell_weight, const OptionalTensor& cell_bias,
                         const OptionalTensor& batch_sizes, const Tensor& h, const Tensor& c, const Tensor& y,
                         const Tensor& a, const Tensor& mean, const Tensor& rstd, const Tensor& gates,
                         const Tensor& cells, const OptionalTensor& raw_cells, const OptionalTensor& cell_mean,
                         const OptionalTensor& cell_rstd, std::vector<int64_t> groups, bool separate, double eps,
                         bool reverse) {
  if (!check::layer_norm_lstm_fwd(input, weight_hh, weight, bias, cell_weight, cell_bias, batch_sizes, h, c, y, a, mean,
                                  rstd, gates, cells, raw_cells, cell_mean, cell_rstd, groups))
    return;
  dispatch(input, "layer_norm_lstm_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = h.size(1), G = groups.size();
    const Parameter<C> w(weight, 0), b(bias, 0), cw(cell_weight, 0), cb(cell_bias, 0);
    const LayerNorm<T> norm(groups, H, eps, w.data(), b.data());
    const LayerNorm<C> cell_norm({1}, H, eps, cw.data(), cb.data());
    const auto lstm = lstm_forward<T>(input, h, y, a, gates, c, cells, raw_cells, cell_mean, separate);
    walk_forward(input, weight_hh, batch_sizes, h, a, reverse, [&](const SequenceStep& step, int64_t first) {
      each_row<C>(step.rows, 4 * H, 8 * H, [&](int64_t row, C* room) {
        const int64_t in = step.first + row, at = first + row;
        C *z = lstm.sums(at, room), *out = room + 4 * H;
        lstm.sum(in, at);
        norm.forward(lstm.a + at * 4 * H, pointer<C>(mean) + at * G, pointer<C>(rstd) + at * G, z);
        lstm.gate(row, in, at, z, out);
        if (lstm.normed) cell_norm.forward(lstm.cell(at), pointer<C>(cell_mean) + at, pointer<C>(cell_rstd) + at, out);
        lstm.output(row, in, at, z + 3 * H, lstm.normed ? out : lstm.cell(at), out);
      });
    });
  });
}

void layer_norm_lstm_bwd(const Tensor& dy, const Tensor& gates, const Tensor& cells, const OptionalTensor& raw_cells,
                         const OptionalTensor& cell_mean, const OptionalTensor& cell_rstd, const Tensor& previous_cells,
                         const Tensor& a, const Tensor& mean, const Tensor& rstd, const Tensor& weight_hh,
                         const OptionalTensor& weight, const OptionalTensor& cell_weight,
                         const OptionalTensor& cell_bias, const OptionalTensor& batch_sizes, const Tensor& dh,
                         const Tensor& dc, const Tensor& dinput, const OptionalTensor& da,
                         const OptionalTensor& dweight, const OptionalTensor& dbias, const OptionalTensor& dcell_weight,
                         const OptionalTensor& dcell_bias, std::vector<int64_t> groups, bool reverse) {
  if (!check::layer_norm_lstm_bwd(dy, gates, cells, raw_cells, cell_mean, cell_rstd, previous_cells, a, mean, rstd,
                                  weight_hh, weight, cell_weight, cell_bias, batch_sizes, dh, dc, dinput, da, dweight,
                                  dbias, dcell_weight, dcell_bias, groups))
    return;
  dispatch(dy, "layer_norm_lstm_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = dh.size(1), G = groups.size();
    const Parameter<C> w(weight, 0), cw(cell_weight, 0), cb(cell_bias, 0);
    const LayerNorm<T> norm(groups, H, 0, w.data(), nullptr);
    const LayerNorm<C> cell_norm({1}, H, 0, cw.data(), cb.data());
    const Parts parts{dh.size(0)};
    GradientTable<C> dw(dweight, parts.count(), 4 * H), db(dbias, parts.count(), 4 * H),
        dcw(dcell_weight, parts.count(), H), dcb(dcell_bias, parts.count(), H);
    const Tensor& sums = da ? *da : dinput;
    const auto lstm = lstm_backward<T>(dy, gates, cells, raw_cells, previous_cells, dh, dinput, sums, dc, cell_mean);
    walk_backward(sums, weight_hh, batch_sizes, dh, reverse, [&](const SequenceStep& step) {
      each_row_of_parts<C>(parts, step.rows, 4 * H, 12 * H, [&](int64_t row, int64_t line, C* numbers) {
        const int64_t in = step.first + row;
        C *dz = lstm.sums(in, numbers), *narrow = numbers + 4 * H, *dm = narrow + 4 * H, *m = dm + H, *room = m + H;
        const C *gate = widened(lstm.gates + in * 4 * H, narrow, 4 * H), *inside = lstm.cells + in * H;
        const C *mu = pointer<C>(cell_mean), *r = pointer<C>(cell_rstd);
        if (lstm.normed && !lstm.raw) {
          cell_norm.affine(lstm.cell(in), mu + in, r + in, m);
          inside = m;
        }
        lstm.output(row, in, gate + 3 * H, inside, dm, dz + 3 * H, room);
        if (lstm.normed)
          cell_norm.backward(dm, lstm.cell(in), mu + in, r + in, lstm.joins_before() ? nullptr : lstm.dc + row * H, dm,
                             dcw.line(line), dcb.line(line));
        lstm.gate(row, in, gate, dm, dz);
        if (da) store_made(dz, lstm.dinput + in * 4 * H, 4 * H);
        norm.backward(dz, pointer<T>(a) + in * 4 * H, pointer<C>(mean) + in * G, pointer<C>(rstd) + in * G, nullptr,
                      lstm.da + in * 4 * H, dw.line(line), db.line(line));
      });
    });
    finish(dw, db, dcw, dcb);
  });
}

}  // namespace

NK_CPU(layer_norm_lstm_fwd, layer_norm_lstm_fwd)
NK_CPU(layer_norm_lstm_bwd, layer_norm_lstm_bwd)

}  // namespace normkernels
