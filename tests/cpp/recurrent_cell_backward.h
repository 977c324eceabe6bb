// The step backward.
#pragma once

#include "recurrent_cell.h"

// The step backward from what the forward left.
template <class T, int G>
struct CellBackward {
  using A = acc_t<T>;
  const Cell<T, G>& f;
  const Case& c = f.c;
  const int64_t C = f.C, H = c.H, count = f.batch ? 1 : lines_of(c.B);
  Buffer<T> dy{normal(f.rows * H, 20), c.aligned}, dh{normal(c.B * H, 21), c.aligned};
  Buffer<T> previous{normal(f.rows * H, 22), c.aligned};
  Buffer<A> previous_cells{normal(f.rows * H, 23), c.aligned};
  Buffer<A> dc{normal(c.B * H, 24), c.aligned}, direct{normal(c.B * H, 25), c.aligned};
  Buffer<T> dinput{f.rows * C, c.aligned}, da{f.rows * C, c.aligned};
  Buffer<A> lines{std::vector<double>(2 * count * C)}, cell_lines{std::vector<double>(2 * count * H)};
  Numbers<T> dweight = parameter<T>(std::vector<double>(C, NAN), c),
             dbias = parameter<T>(std::vector<double>(C, NAN), c);
  Numbers<T> dcell_weight = parameter<T>(std::vector<double>(H, NAN), c),
             dcell_bias = parameter<T>(std::vector<double>(H, NAN), c);
  const Reals dc_first = f.reals(dc, 0, c.B* H), direct_first = f.reals(direct, 0, c.B* H);

  template <class P>
  void fill(P& p) {
    p.dy = dy.data, p.a = f.a.data, p.weight = f.weight.parameter(), p.bias = f.bias.parameter();
    p.dh = dh.data, p.dinput = dinput.data, p.da = c.separate ? da.data : nullptr, p.eps = kEps;
    p.partial = c.present ? lines.data : nullptr;
    p.P = count, p.hidden = H, p.t = kStep, p.rows = c.n, p.first = kFirst, p.mean = f.mean.data;
    if constexpr (requires { p.groups; }) {
      p.groups = make_groups<A, G>(c.groups.data(), c.groups.size(), H), p.rstd = f.scale.data;
      p.packed = c.aligned && H % kPack<T> == 0;
    } else {
      p.var = f.scale.data, p.training = c.training;
    }
    if constexpr (requires { p.relu; }) p.y = f.y.data, p.relu = c.relu;
    if constexpr (requires { p.direct; }) p.gates = f.gates.data, p.previous = previous.data, p.direct = direct.data;
    if constexpr (requires { p.lstm; }) {
      p.lstm = {f.gates.data, f.cells.data, c.cell == kCarried ? f.raw_cells.data : nullptr, previous_cells.data};
      p.lstm.dc = dc.data, p.lstm.cell_partial = c.present && c.cell != kNone ? cell_lines.data : nullptr;
      f.fill_cell_norm(p);
    }
  }
  // Of each gate's sum, and of what the norm of a gives: the two differ in a GRU's n.
  Reals dz, dq;

  Real gate(int64_t r, int g, int64_t j) const { return f.gates[(kFirst + r) * C + g * H + j]; }
  Real coming_back(int64_t i) const { return Real(dy[kFirst * H + i]) + dh[i]; }

  void want_rnn() {
    for (int64_t i = 0; i < c.n * H; ++i) {
      const Real y = f.y[kFirst * H + i];
      dz.push_back(coming_back(i) * (c.relu ? Real(y > 0) : 1 - y * y));
    }
    dq = dz;
  }

  void want_gru(const Norm& norm) {
    Reals want;
    for (int64_t r = 0; r < c.n; ++r)
      for (int64_t j = 0; j < H; ++j) {
        const Real rr = gate(r, 0, j), z = gate(r, 1, j), n = gate(r, 2, j);
        const int64_t i = r * H + j, at = r * C + j;
        const Real q = norm.xhat[at + 2 * H] * f.weight.at(2 * H + j, 1) + f.bias.at(2 * H + j, 0);
        const Real back = coming_back(i) + direct_first[i], dn = back * (1 - z) * (1 - n * n);
        dz[at] = dq[at] = dn * q * rr * (1 - rr);
        dz[at + H] = dq[at + H] = back * (previous[kFirst * H + i] - n) * z * (1 - z);
        dz[at + 2 * H] = dn, dq[at + 2 * H] = dn * rr;
        want.push_back(back * z);
      }
    f.check_state("direct", direct, want, direct_first);
  }

  void want_lstm() {
    const Buffer<A>& raw = c.cell == kCarried ? f.raw_cells : f.cells;
    const Norm norm = f.cell_norm(f.reals(raw, kFirst * H, c.n * H));
    const bool through = c.cell != kOutput;
    Reals d, g, out, want;
    for (int64_t i = 0; i < c.n * H; ++i) {
      const int64_t j = i % H;
      const Real normed = norm.xhat[i] * f.cell_weight.at(j, 1) + f.cell_bias.at(j, 0);
      const Real t = std::tanh(c.cell == kNone ? raw[kFirst * H + i] : normed);
      out.push_back(coming_back(i) * t);
      d.push_back(coming_back(i) * gate(i / H, 3, j) * (1 - t * t) + (through ? dc_first[i] : 0));
      g.push_back(d[i] * f.cell_weight.at(j, 1));
    }
    if (c.cell != kNone) check_sums("dcell_", dcell_weight, dcell_bias, d, norm.xhat, H), g = norm.backward(g);
    if (c.cell == kNone) g = d;
    for (int64_t i = 0; i < c.n * H; ++i) {
      const int64_t r = i / H, j = i % H, at = r * C + j;
      const Real ii = gate(r, 0, j), ff = gate(r, 1, j), gg = gate(r, 2, j), oo = gate(r, 3, j);
      const Real dcell = g[i] + (through ? 0 : dc_first[i]);
      dz[at] = dcell * gg * ii * (1 - ii);
      dz[at + H] = dcell * previous_cells[kFirst * H + i] * ff * (1 - ff);
      dz[at + 2 * H] = dcell * ii * (1 - gg * gg);
      dz[at + 3 * H] = out[i] * oo * (1 - oo);
      want.push_back(dcell * ff);
    }
    dq = dz;
    f.check_state("dc", dc, want, dc_first);
  }

  // the step ran twice
  void check_sums(const std::string& name, const Numbers<T>& dw, const Numbers<T>& db, const Reals& d,
                  const Reals& xhat, int64_t N) const {
    Reals along(N), sum(N), got_along, got_sum;
    for (size_t i = 0; i < d.size(); ++i) along[i % N] += 2 * d[i] * xhat[i], sum[i % N] += 2 * d[i];
    for (int64_t i = 0; c.present && i < N; ++i) got_along.push_back(dw.at(i, 0)), got_sum.push_back(db.at(i, 0));
    if (!c.present) return;
    f.check(name + "weight", got_along, along, c.wide ? 0 : kUlp<T>, 8 * std::sqrt(double(c.n)));
    f.check(name + "bias", got_sum, sum, c.wide ? 0 : kUlp<T>, 8 * std::sqrt(double(c.n)));
  }

  void check_backward() {
    const Norm norm = f.gate_norm(f.reals(f.a, kFirst * C, c.n * C));
    dz.resize(G == 1 ? 0 : c.n * C), dq.resize(dz.size());
    if (G == 1) want_rnn();
    if (G == 3) want_gru(norm);
    if (G == 4) want_lstm();
    check_sums("d", dweight, dbias, dq, norm.xhat, C);
    Reals g = dq;
    for (int64_t i = 0; i < c.n * C; ++i) g[i] *= f.weight.at(i % C, 1);
    f.check_rows("da", c.separate ? da : dinput, kFirst, C, norm.backward(g));
    if (c.separate) f.check_rows("dinput", dinput, kFirst, C, dz);
  }

  template <class P, class Step>
  void run(Step step) {
    for (int time = 0; time < 2; ++time) {
      for (int64_t i = 0; i < c.B * H; ++i) dc.data[i] = dc_first[i], direct.data[i] = direct_first[i];
      P p{};
      fill(p);
      step(p);
    }
    if (!c.present) return;
    for (int64_t b = 0; b < std::min(count, c.n); ++b) {  // each block has a line of its own
      const A* line = lines.data + b * C;
      CHECK(std::any_of(line, line + C, [](A v) { return v != 0; }), "%sline %ld", f.what.c_str(), long(b));
    }
    line_sums<T>({lines.data, dweight.data(), dbias.data(), c.wide, c.wide, count, C}, kDevice);
    line_sums<T>({cell_lines.data, dcell_weight.data(), dcell_bias.data(), c.wide, c.wide, count, H}, kDevice);
  }
};
