// The GRU with layer norm (Ba et al. 2016, arXiv:1607.06450): the CPU kernels.
#include "checks/recurrent.h"
#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/layer_norm.h"

namespace normkernels {
namespace {

void layer_norm_gru_fwd(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& batch_sizes, const Tensor& h, const Tensor& y,
                        const Tensor& a, const Tensor& mean, const Tensor& rstd, const Tensor& gates,
                        std::vector<int64_t> groups, bool separate, double eps, bool reverse) {
  if (!check::layer_norm_gru_fwd(input, weight_hh, weight, bias, batch_sizes, h, y, a, mean, rstd, gates, groups))
    return;
  dispatch(input, "layer_norm_gru_fwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = h.size(1), N = 3 * H, G = groups.size();
    const Parameter<C> w(weight, 0), b(bias, 0);
    const LayerNorm<T> norm(groups, H, eps, w.data(), b.data());
    walk_forward(input, weight_hh, batch_sizes, h, a, reverse, [&](const SequenceStep& step, int64_t at) {
      each_row<C>(step.rows, N, 2 * N + 2 * H, [&](int64_t row, C* room) {
        const T* p = pointer<T>(input) + (step.first + row) * N;
        T *sums = pointer<T>(a) + (at + row) * N, *state = pointer<T>(h) + row * H;
        C *q = made_at(pointer<T>(gates) + (at + row) * N, room), *before = room + 2 * N, *after = before + H;
        if (!separate) add_tiles(sums, p, sums, N);
        norm.forward(sums, pointer<C>(mean) + (at + row) * G, pointer<C>(rstd) + (at + row) * G, q);
        gru_tile(q, separate ? widened(p, room + N, N) : nullptr, widened(state, before, H), after, H);
        store_made(q, pointer<T>(gates) + (at + row) * N, N);
        store_tile(after, pointer<T>(y) + (step.first + row) * H, H);
        store_tile(after, state, H);
      });
    });
  });
}

// The rows of one step backward; direct: (B, H), what reaches the state before without going through a gate.
template <class T>
struct GruBackward {
  using C = compute_t<T>;
  int64_t H;
  const LayerNorm<T>& norm;
  const T *dy, *gates, *previous, *a;
  const C *mean, *rstd;
  T *dh, *dinput, *da;
  C* direct;

  static int64_t room(int64_t H) { return 9 * H + 4 * H; }

  void row(int64_t b, int64_t in, C* dq, C* dweight, C* dbias) const {
    const int64_t N = 3 * H, G = norm.count();
    C *q = dq + N, *room = q + N, *dp = room + N, *d = dp + H, *before = d + H, *narrow = before + H;
    sum_widened(dy + in * H, dh + b * H, d, narrow, H);
    add_tiles(d, direct + b * H, d, H);
    norm.affine(a + in * N, mean + in * G, rstd + in * G, q);
    gru_backward_tile(widened(gates + in * N, room, N), q + 2 * H, widened(previous + in * H, before, H), d, dq, dp,
                      direct + b * H, H);
    if (da != dinput) {
      store_tile(dq, dinput + in * N, 2 * H);
      store_tile(dp, dinput + in * N + 2 * H, H);
    }
    norm.backward(dq, a + in * N, mean + in * G, rstd + in * G, nullptr, da + in * N, dweight, dbias);
  }
};

void layer_norm_gru_bwd(const Tensor& dy, const Tensor& gates, const Tensor& previous, const Tensor& a,
                        const Tensor& mean, const Tensor& rstd, const Tensor& weight_hh, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& batch_sizes, const Tensor& dh,
                        const Tensor& dinput, const OptionalTensor& da, const OptionalTensor& dweight,
                        const OptionalTensor& dbias, std::vector<int64_t> groups, bool reverse) {
  if (!check::layer_norm_gru_bwd(dy, gates, previous, a, mean, rstd, weight_hh, weight, bias, batch_sizes, dh, dinput,
                                 da, dweight, dbias, groups))
    return;
  dispatch(dy, "layer_norm_gru_bwd", [&](auto element) {
    using T = decltype(element);
    using C = compute_t<T>;
    const int64_t H = dh.size(1), N = 3 * H;
    const Parameter<C> w(weight, 0), b(bias, 0);
    const LayerNorm<T> norm(groups, H, 0, w.data(), b.data());
    const Parts parts{dh.size(0)};
    GradientTable<C> dw(dweight, parts.count(), N), db(dbias, parts.count(), N);
    const Tensor& sums = da ? *da : dinput;
    Scratch<C> direct(dh.numel());
    const GruBackward<T> backward{H,
                                  norm,
                                  pointer<T>(dy),
                                  pointer<T>(gates),
                                  pointer<T>(previous),
                                  pointer<T>(a),
                                  pointer<C>(mean),
                                  pointer<C>(rstd),
                                  pointer<T>(dh),
                                  pointer<T>(dinput),
                                  pointer<T>(sums),
                                  direct.data()};
    walk_backward(sums, weight_hh, batch_sizes, dh, reverse, [&](const SequenceStep& step) {
      each_row_of_parts<C>(parts, step.rows, N, backward.room(H), [&](int64_t row, int64_t line, C* room) {
        backward.row(row, step.first + row, room, dw.line(line), db.line(line));
      });
    });
    each_row<C>(dh.size(0), H, 2 * H, [&](int64_t row, C* d) {
      load_tile(backward.dh + row * H, d, H);
      add_tiles(d, direct.data() + row * H, d, H);
      store_tile(d, backward.dh + row * H, H);
    });
    finish(dw, db);
  });
}

}  // namespace

NK_CPU(layer_norm_gru_fwd, layer_norm_gru_fwd)
NK_CPU(layer_norm_gru_bwd, layer_norm_gru_bwd)

}  // namespace normkernels
