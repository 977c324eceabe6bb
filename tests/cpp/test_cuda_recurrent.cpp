// The CUDA kernels of recurrent cells, run on the CPU: a step forward and backward against loops in long double.
#include "buffer.h"
#include "check.h"
#include "cuda/recurrent/batch_norm_lstm_backward.cuh"
#include "cuda/recurrent/batch_norm_lstm_forward.cuh"
#include "cuda/recurrent/batch_norm_rnn.cuh"
#include "cuda/recurrent/layer_norm_gru.cuh"
#include "cuda/recurrent/layer_norm_lstm_backward.cuh"
#include "cuda/recurrent/layer_norm_lstm_forward.cuh"
#include "cuda/recurrent/layer_norm_rnn.cuh"

using namespace normkernels::cuda;
using Reals = std::vector<Real>;

constexpr double kEps = 1e-5;
constexpr int64_t kFirst = 3, kStep = 1;  // where the step's rows begin, and which step it is
const Device kDevice{3, 400000, nullptr};

template <class T>
constexpr double kUlp = sizeof(T) == 2   ? 0x1p-8
                        : sizeof(T) == 4 ? 0x1p-23
                                         : 0x1p-52;
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

// A parameter in T or in float, or absent.
template <class T>
struct Numbers {
  Buffer<T> own;
  Buffer<float> wide;
  bool present, is_float;

  Numbers(const std::vector<double>& values, const Case& c)
      : own(values, c.aligned), wide(values, c.aligned), present(c.present), is_float(c.wide) {}
  void* data() const { return !present ? nullptr : is_float ? static_cast<void*>(wide.data) : own.data; }
  Parameter parameter() const { return {data(), is_float}; }
  Real at(int64_t i, Real absent) const { return !present ? absent : is_float ? wide[i] : own[i]; }
};

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
  Numbers<T> weight{normal(C, 9, 1, 0.5), c}, bias{normal(C, 10), c};
  Numbers<T> cell_weight{normal(c.H, 11, 1, 0.5), c}, cell_bias{normal(c.H, 12), c};

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
  Numbers<T> dweight{std::vector<double>(C, NAN), c}, dbias{std::vector<double>(C, NAN), c};
  Numbers<T> dcell_weight{std::vector<double>(H, NAN), c}, dcell_bias{std::vector<double>(H, NAN), c};
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

template <template <class> class Forward, template <class> class Backward, int G, class T, class Step>
void check(const Case& c, Step step) {
  Cell<T, G> cell(c);
  Forward<T> p{};
  cell.fill(p);
  step(p);
  cell.check_forward();
  if (!c.kept) return;
  CellBackward<T, G> backward{cell};
  backward.template run<Backward<T>>(step);
  backward.check_backward();
}

template <class T>
void check_case(const Case& c, int gates) {
  const auto rnn = [](const auto& p) { layer_norm_rnn_step(p, kDevice); };
  const auto gru = [](const auto& p) { layer_norm_gru_step(p, kDevice); };
  const auto lstm = [](const auto& p) { layer_norm_lstm_step(p, kDevice); };
  const auto batch_rnn = [](const auto& p) { batch_norm_rnn_step(p, kDevice); };
  const auto batch_lstm = [](const auto& p) { batch_norm_lstm_step(p, kDevice); };
  if (c.groups.empty() && gates == 1) return check<BatchNormRnnForward, BatchNormRnnBackward, 1, T>(c, batch_rnn);
  if (c.groups.empty()) return check<BatchNormLstmForward, BatchNormLstmBackward, 4, T>(c, batch_lstm);
  if (gates == 1) return check<LayerNormRnnForward, LayerNormRnnBackward, 1, T>(c, rnn);
  if (gates == 3) return check<LayerNormGruForward, LayerNormGruBackward, 3, T>(c, gru);
  check<LayerNormLstmForward, LayerNormLstmBackward, 4, T>(c, lstm);
}

template <class T>
void check_add() {
  const int64_t batch = 5, H = 100;
  const auto values = normal(batch * H, 1);
  Buffer<T> dh(values);
  const Buffer<T> before(values);
  Buffer<acc_t<T>> direct(normal(batch * H, 2));
  LayerNormGruBackward<T> p{};
  p.dh = dh.data, p.direct = direct.data, p.hidden = H;
  layer_norm_gru_add(p, batch, kDevice);
  for (int64_t i = 0; i < batch * H; ++i)
    check_close("dh + direct", i, dh[i], before[i] + direct[i], kUlp<T>, kSmall<T>);
}

template <class T>
void check_all() {
  const int64_t V = kPack<T>, long_row = 256 * V;
  const bool wide = sizeof(T) == 2;
  const std::vector<int64_t> none;
  for (const bool separate : {true, false}) {
    // packed, some threads idle; several chunks of a row; odd lengths; more rows than lines; not aligned
    for (const auto& [H, B, n, aligned] :
         std::vector<std::tuple<int64_t, int64_t, int64_t, bool>>{{4 * V, 3, 3, true},
                                                                  {long_row + 2 * V, 2, 1, true},
                                                                  {33, 5, 4, true},
                                                                  {40, 70, 67, true},
                                                                  {48, 2, 2, false}}) {
      const bool present = H != 48;
      Case c{H, B, n, {1}, separate, aligned, kNone, wide && separate, present};
      check_case<T>(c, 1);
      c.groups = {2, 1}, check_case<T>(c, 3);
      c.groups = {4}, c.cell = kOutput, check_case<T>(c, 4);
    }
    for (const auto& groups : std::vector<std::vector<int64_t>>{{3}, {1, 1, 1}})
      check_case<T>({24, 3, 2, groups, separate, true}, 3);
    for (const CellNorm cell : {kNone, kOutput, kCarried}) {
      check_case<T>({24, 3, 2, {1, 1, 1, 1}, separate, true, cell, wide}, 4);
      check_case<T>({35, 3, 2, {4}, separate, true, cell, false, cell != kOutput, cell != kCarried}, 4);
      // units of two blocks; more and fewer rows than threads
      for (const bool training : {true, false}) {
        check_case<T>({37, 40, 35, none, separate, true, cell, wide, true, true, training}, 4);
        check_case<T>({16, 4, 2, none, separate, false, cell, false, cell == kNone, cell != kOutput, training}, 4);
      }
    }
    for (const bool training : {true, false}) {
      check_case<T>({37, 40, 35, none, separate, true, kNone, wide, true, true, training}, 1);
      check_case<T>({16, 4, 2, none, separate, true, kNone, false, false, training, training, true}, 1);
    }
    check_case<T>({64, 3, 2, {1}, separate, true, kNone, false, true, false}, 1);
    check_case<T>({64, 3, 3, {1}, separate, true, kNone, false, true, true, true, true}, 1);
  }
  check_add<T>();
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  return report("cuda kernels of recurrent cells on the cpu");
}
