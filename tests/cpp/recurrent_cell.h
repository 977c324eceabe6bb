// A step of a recurrent cell forward: what the CUDA kernels are given, and what is right, by loops in long double.
#pragma once

#include "buffer.h"
#include "check.h"
#include "cuda/recurrent/cells.cuh"

using namespace normkernels::cuda;
using Reals = std::vector<Real>;

constexpr double kEps = 1e-5;
constexpr int64_t kFirst = 3, kStep = 1;  // where the step's rows begin, and which step it is
const Device kDevice{3, 400000, nullptr};

template <class T>
constexpr double kSmall = sizeof(acc_t<T>) == 8 ? 1e-12 : 2e-5;

enum CellNorm { kNone, kOutput, kCarried };

struct Case {
  int64_t H, B, n;              // n: rows of the step
  std::vector<int64_t> groups;  // none: batch norm
  bool separate, aligned;
  CellNorm cell = kNone;
  bool wide = false, present = true, kept = true, training = true, relu = false;
};

template <class T>
Numbers<T> parameter(const std::vector<double>& values, const Case& c) {
  return {values, c.present, c.wide, c.aligned};
}

// x, values that are normalised together where their keys are the same; given: the statistics without training.
struct Norm {
  std::vector<int64_t> keys;
  Reals count, mean, var, rstd, xhat;
  bool training;

  Norm(const Reals& x, std::vector<int64_t> of, const Reals& given_mean, const Reals& given_var)
      : keys(of), training(given_mean.empty()) {
    const int64_t number = 1 + *std::max_element(keys.begin(), keys.end());
    count.resize(number), mean.resize(number), var.resize(number);
    for (size_t i = 0; i < x.size(); ++i) ++count[keys[i]], mean[keys[i]] += x[i];
    for (int64_t k = 0; k < number; ++k) mean[k] /= count[k];
    for (size_t i = 0; i < x.size(); ++i) var[keys[i]] += std::pow(x[i] - mean[keys[i]], 2) / count[keys[i]];
    if (!training) mean = given_mean, var = given_var;
    for (const Real v : var) rstd.push_back(1 / std::sqrt(v + kEps));
    for (size_t i = 0; i < x.size(); ++i) xhat.push_back((x[i] - mean[keys[i]]) * rstd[keys[i]]);
  }

  // of x, from g, that of xhat
  Reals backward(const Reals& g) const {
    Reals sum(count.size()), along(count.size()), dx;
    for (size_t i = 0; training && i < g.size(); ++i)
      sum[keys[i]] += g[i] / count[keys[i]], along[keys[i]] += g[i] * xhat[i] / count[keys[i]];
    for (size_t i = 0; i < g.size(); ++i)
      dx.push_back(rstd[keys[i]] * (g[i] - sum[keys[i]] - xhat[i] * along[keys[i]]));
    return dx;
  }
};

// A step of a cell with G gates: its buffers, which the kernels are given, and what is to be in them.
template <class T, int G>
struct Cell {
  using A = acc_t<T>;
  const Case& c;
  const std::string what;
  const int64_t C = G * c.H, rows = kFirst + c.B + 1, own = c.kept ? kFirst : 0;
  const bool batch = c.groups.empty();
  const int64_t columns = batch ? C : c.groups.size(), cell_columns = batch ? c.H : 1;

  Buffer<T> input{normal(rows * C, 1), c.aligned}, h{normal(c.B * c.H, 2), c.aligned}, y{rows * c.H, c.aligned};
  Buffer<T> a{normal(rows * C, 3, 0.5, 2), c.aligned}, gates{rows * C, c.aligned};
  Buffer<A> state{normal(c.B * c.H, 4), c.aligned}, cells{rows * c.H, c.aligned}, raw_cells{rows * c.H, c.aligned};
  // of statistics without training, which were of another batch
  Buffer<A> mean{normal(rows * columns, 5)}, scale{squared(rows * columns, 6)};
  Buffer<A> cell_mean{normal(rows * cell_columns, 7)}, cell_scale{squared(rows * cell_columns, 8)};
  Numbers<T> weight = parameter<T>(normal(C, 9, 1, 0.5), c), bias = parameter<T>(normal(C, 10), c);
  Numbers<T> cell_weight = parameter<T>(normal(c.H, 11, 1, 0.5), c), cell_bias = parameter<T>(normal(c.H, 12), c);

  const Reals h_before = reals(h, 0, c.B* c.H), state_before = reals(state, 0, c.B* c.H);
  const Reals product = reals(a, own* C, c.n* C), in = reals(input, kFirst* C, c.n* C);
  const Reals given_mean = given(mean, columns), given_var = given(scale, columns);
  const Reals given_cell_mean = given(cell_mean, cell_columns), given_cell_var = given(cell_scale, cell_columns);

  explicit Cell(const Case& c)
      : c(c),
        what((c.groups.empty() ? "batch norm, gates " : "layer norm, gates ") + std::to_string(G) + ", units " +
             std::to_string(c.H) + ", bytes " + std::to_string(sizeof(T)) + ": ") {}

  static std::vector<double> squared(int64_t n, unsigned seed) {
    auto values = normal(n, seed, 1);
    for (double& v : values) v *= v;
    return values;
  }
  template <class U>
  static Reals reals(const Buffer<U>& buffer, int64_t from, int64_t n) {
    Reals values;
    for (int64_t i = from; i < from + n; ++i) values.push_back(buffer[i]);
    return values;
  }
  Reals given(const Buffer<A>& table, int64_t columns) const {
    return c.training ? Reals() : reals(table, kStep * columns, columns);
  }

  Norm gate_norm(const Reals& x) const {
    std::vector<int64_t> keys, group;
    for (size_t i = 0; i < c.groups.size(); ++i) group.insert(group.end(), c.groups[i], i);
    for (int64_t i = 0; i < c.n * C; ++i) keys.push_back(batch ? i % C : i / C * columns + group[i % C / c.H]);
    return {x, keys, given_mean, given_var};
  }
  Norm cell_norm(const Reals& x) const {
    std::vector<int64_t> keys;
    for (int64_t i = 0; i < c.n * c.H; ++i) keys.push_back(batch ? i % c.H : i / c.H);
    return {x, keys, given_cell_mean, given_cell_var};
  }

  void check(const std::string& name, const Reals& got, const Reals& want, double ulp, double scale = 1) const {
    for (size_t i = 0; i < want.size(); ++i) check_close(what + name, i, got[i], want[i], ulp, scale * kSmall<T>);
  }
  // n rows from `from` on are what is wanted, the one before and the one after are as they were
  template <class U>
  void check_rows(const std::string& name, const Buffer<U>& b, int64_t from, int64_t width, const Reals& want) const {
    check(name, reals(b, from * width, c.n * width), want, kUlp<U>);
    const bool before = from == 0 || std::isnan(double(b[from * width - 1]));
    CHECK(before && std::isnan(double(b[(from + c.n) * width])), "%s%s: rows around", what.c_str(), name.c_str());
  }
  template <class U>
  void check_state(const std::string& name, const Buffer<U>& b, const Reals& want, const Reals& before) const {
    check(name, reals(b, 0, c.n * c.H), want, kUlp<U>);
    for (int64_t i = c.n * c.H; i < c.B * c.H; ++i)
      CHECK(b[i] == before[i], "%s%s: a row after", what.c_str(), name.c_str());
  }
  // of statistics: a line for the step, or one for each row
  void check_statistics(const Norm& norm, const Buffer<A>& mean, const Buffer<A>& scale, int64_t columns) const {
    const int64_t from = (batch ? kStep : own) * columns, count = norm.mean.size();
    check("mean", reals(mean, from, count), norm.mean, 0);
    check("var or rstd", reals(scale, from, count), batch ? norm.var : norm.rstd, kSmall<T>);
  }

  template <class P>
  void fill(P& p) const {
    p.input = input.data, p.h = h.data, p.y = y.data, p.a = a.data, p.separate = c.separate, p.eps = kEps;
    p.weight = weight.parameter(), p.bias = bias.parameter();
    p.hidden = c.H, p.t = kStep, p.rows = c.n, p.first = kFirst, p.own = own, p.mean = mean.data;
    if constexpr (requires { p.groups; }) {
      p.groups = make_groups<A, G>(c.groups.data(), c.groups.size(), c.H), p.rstd = scale.data;
      p.packed = c.aligned && c.H % kPack<T> == 0;
    } else {
      p.var = scale.data, p.training = c.training;
    }
    if constexpr (requires { p.relu; }) p.relu = c.relu;
    if constexpr (requires { p.gates; }) p.gates = gates.data;
    if constexpr (requires { p.lstm; }) {
      A* raw = c.cell == kCarried ? raw_cells.data : nullptr;
      p.lstm = {gates.data, state.data, cells.data, raw};
      fill_cell_norm(p);
    }
  }
  template <class P>
  void fill_cell_norm(P& p) const {
    p.lstm.cell_weight = c.cell == kNone ? Parameter{} : cell_weight.parameter();
    p.lstm.cell_bias = c.cell == kNone ? Parameter{} : cell_bias.parameter();
    p.cell_mean = c.cell == kNone ? nullptr : cell_mean.data;
    A* cell_scale_data = c.cell == kNone ? nullptr : cell_scale.data;
    if constexpr (requires { p.cell_rstd; })
      p.cell_rstd = cell_scale_data;
    else
      p.cell_var = cell_scale_data;
  }

  void check_forward() {
    Reals sums = product, x;
    for (size_t i = 0; !c.separate && i < sums.size(); ++i) sums[i] += in[i];
    check("a", reals(a, own * C, c.n * C), sums, c.separate ? 0 : kUlp<T>);
    const Norm norm = gate_norm(reals(a, own * C, c.n * C));
    check_statistics(norm, mean, scale, columns);
    Reals want_h, want_gates(c.n * C), raw, carried, out;
    const auto term = [&](int64_t r, int g, int64_t j, bool with_input) {
      const int64_t i = r * C + g * c.H + j;
      const Real q = norm.xhat[i] * weight.at(g * c.H + j, 1) + bias.at(g * c.H + j, 0);
      return with_input && c.separate ? q + in[i] : q;
    };
    const auto gate = [&](int64_t r, int g, int64_t j) -> Real& { return want_gates[r * C + g * c.H + j]; };
    for (int64_t r = 0; r < c.n; ++r)
      for (int64_t j = 0; j < c.H; ++j) {
        const Real before = h_before[r * c.H + j], z = term(r, 0, j, true);
        if (G == 1) want_h.push_back(c.relu ? std::max<Real>(z, 0) : std::tanh(z));
        if (G == 3) {
          gate(r, 0, j) = sigmoid(z), gate(r, 1, j) = sigmoid(term(r, 1, j, true));
          const Real more = c.separate ? in[r * C + 2 * c.H + j] : 0;
          const Real n = gate(r, 2, j) = std::tanh(more + gate(r, 0, j) * term(r, 2, j, false));
          want_h.push_back(n + gate(r, 1, j) * (before - n));
        }
        if (G == 4) {
          for (const int g : {0, 1, 3}) gate(r, g, j) = sigmoid(term(r, g, j, true));
          gate(r, 2, j) = std::tanh(term(r, 2, j, true));
          raw.push_back(gate(r, 1, j) * state_before[r * c.H + j] + gate(r, 0, j) * gate(r, 2, j));
        }
      }
    if (G == 4) {
      const Norm cell = cell_norm(raw);
      if (c.cell != kNone) check_statistics(cell, cell_mean, cell_scale, cell_columns);
      for (int64_t i = 0; i < c.n * c.H; ++i) {
        const Real normed = cell.xhat[i] * cell_weight.at(i % c.H, 1) + cell_bias.at(i % c.H, 0);
        carried.push_back(c.cell == kCarried ? normed : raw[i]);
        want_h.push_back(gate(i / c.H, 3, i % c.H) * std::tanh(c.cell == kNone ? raw[i] : normed));
      }
      check_rows("cells", cells, own, c.H, carried);
      check_state("c", state, carried, state_before);
      if (c.cell == kCarried) check_rows("raw cells", raw_cells, own, c.H, raw);
    }
    if (G > 1) check_rows("gates", gates, own, C, want_gates);
    check_rows("y", y, kFirst, c.H, want_h);
    check_state("h", h, want_h, h_before);
  }
};
