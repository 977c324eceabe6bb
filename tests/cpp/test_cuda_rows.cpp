// The CUDA kernels of the row and column families, run on the CPU, against loops in long double.
#include <limits>

#include "check.h"
#include "cuda/rows/backward.cuh"
#include "cuda/rows/forward.cuh"
#include "cuda/strided_rows/backward.cuh"
#include "cuda/strided_rows/forward.cuh"
#include "reference.h"

using namespace normkernels::cuda;

template <class T>
constexpr double kRounding = sizeof(T) == 2 ? 0x1p-8 : std::numeric_limits<acc_t<T>>::epsilon();

struct Case {
  int64_t M, N, S;   // S > 1: columns of (M, N, S)
  const char* name;  // of the activation
  bool residual, weight, bias, float_parameters, aligned;
  bool sums = true;     // dweight and dbias wanted
  int64_t samples = 1;  // of M / samples rows, with weights of their own
};

// Values of T at a chosen alignment, with the exact values beside them.
template <class T>
struct Buffer {
  std::vector<T> storage;
  T* data;
  int64_t size;

  Buffer(int64_t size, bool aligned) : storage(size + 32), size(size) {
    data = storage.data();
    while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
    data += aligned ? 0 : 1;
    for (int64_t i = 0; i < size; ++i) data[i] = narrow<T>(std::numeric_limits<float>::quiet_NaN());
  }
  Buffer(const std::vector<double>& values, bool aligned) : Buffer(int64_t(values.size()), aligned) {
    for (int64_t i = 0; i < size; ++i) data[i] = narrow<T>(acc_t<T>(values[i]));
  }
  double operator[](int64_t i) const { return widen(data[i]); }
};

// A parameter in x's dtype or in float, and its exact values; `absent` for none.
template <class T>
struct ParameterBuffer {
  Buffer<T> own;
  Buffer<float> wide;
  Parameter parameter{};
  std::vector<Real> exact;

  ParameterBuffer(const std::vector<double>& values, bool present, bool is_float, bool aligned, double offset,
                  Real absent)
      : own(values, aligned), wide(values, aligned), exact(values.size(), absent) {
    if (!present) return;
    parameter = {is_float ? static_cast<const void*>(wide.data) : own.data, is_float};
    for (size_t i = 0; i < values.size(); ++i) exact[i] = (is_float ? wide[i] : own[i]) + offset;
  }
};

template <class T>
struct Fixture {
  using A = acc_t<T>;
  static constexpr double kEps = 1e-5, kOffset = 0.5, kSlope = 0.125;
  Case c;
  int64_t count, statistics;
  Buffer<T> x, residual, dy, dsummed, y, summed, dx, dweight, dbias;
  Buffer<A> mean, rstd;
  ParameterBuffer<T> w, b;
  Affine<T> affine;
  Device device{3, 40000, nullptr};
  std::vector<std::vector<A>> workspaces;

  explicit Fixture(const Case& c)
      : c(c),
        count(c.M * c.N * c.S),
        statistics(c.M * c.S),
        x(normal(count, 1, 3), c.aligned),
        residual(normal(count, 2), c.aligned),
        dy(normal(count, 3), c.aligned),
        dsummed(normal(count, 4), c.aligned),
        y(count, c.aligned),
        summed(count, c.aligned),
        dx(count, c.aligned),
        dweight(c.samples * c.N, true),
        dbias(c.samples * c.N, true),
        mean(statistics, true),
        rstd(statistics, true),
        w(normal(c.samples * c.N, 5), c.weight, c.float_parameters, c.aligned, kOffset, 1),
        b(normal(c.samples * c.N, 6), c.bias, c.float_parameters, c.aligned, 0, 0),
        affine{w.parameter, b.parameter, A(kOffset), A(kSlope), find_activation(c.name)} {}

  auto workspace() {
    return [this](int64_t n) { return workspaces.emplace_back(n, std::numeric_limits<A>::quiet_NaN()).data(); };
  }
  bool packed(int64_t length) const { return c.aligned && length % kPack<T> == 0; }
  LineSums<T> sums(bool center) {
    const bool biased = c.sums && (center || c.bias);
    return {nullptr, c.sums ? dweight.data : nullptr, biased ? dbias.data : nullptr, false, false, 0, c.N};
  }
  // Of the sample that a row is of
  int64_t first(int64_t row) const { return row * c.samples / statistics * c.N; }
  std::vector<Real> own(const std::vector<Real>& exact, int64_t row) const {
    return {exact.begin() + first(row), exact.begin() + first(row) + c.N};
  }

  // element n of row (m, s)
  int64_t at(int64_t row, int64_t n) const { return (row / c.S * c.N + n) * c.S + row % c.S; }
  std::vector<Real> row(const Buffer<T>& values, int64_t m) const {
    std::vector<Real> out;
    for (int64_t n = 0; n < c.N; ++n) out.push_back(values[at(m, n)]);
    return out;
  }

  void check(bool center) {
    const std::string what = std::string(c.name) + " " + std::to_string(c.M) + "x" + std::to_string(c.N) + "x" +
                             std::to_string(c.S) + (center ? " layer " : " rms ") + std::to_string(sizeof(T)) +
                             " bytes ";
    const double ulp = kRounding<T>, small = sizeof(T) == 8 ? 1e-9 : 2e-5;
    std::vector<Real> dw(c.samples * c.N), db(c.samples * c.N);
    for (int64_t m = 0; m < statistics; ++m) {
      const auto s = row(c.residual ? summed : x, m);
      if (c.residual)
        for (int64_t n = 0; n < c.N; ++n)
          check_close(what + "summed", at(m, n), s[n], row(x, m)[n] + row(residual, m)[n], ulp, 0);
      const auto weight = own(w.exact, m);
      Row want(s, center, kEps, weight, own(b.exact, m), c.name, kSlope);
      const auto skip = c.residual ? row(dsummed, m) : std::vector<Real>(c.N);
      want.backward(row(dy, m), skip, center, weight, c.name, kSlope);
      if (center) check_close(what + "mean", m, mean[m], want.mean, small, small);
      check_close(what + "rstd", m, rstd[m], want.rstd, small, 0);
      for (int64_t n = 0; n < c.N; ++n) {
        check_close(what + "y", at(m, n), y[at(m, n)], want.y[n], ulp, small);
        check_close(what + "dx", at(m, n), dx[at(m, n)], want.dx[n], ulp, 4 * small * double(1 + want.rstd));
        dw[first(m) + n] += want.du[n] * want.xhat[n];
        db[first(m) + n] += want.du[n];
      }
    }
    for (int64_t n = 0; c.sums && n < c.samples * c.N; ++n) {
      check_close(what + "dweight", n, dweight[n], dw[n], ulp, small * std::sqrt(statistics) * 4);
      if (center || c.bias) check_close(what + "dbias", n, dbias[n], db[n], ulp, small * std::sqrt(statistics) * 4);
    }
  }
};

template <bool CENTER, class T>
void check_rows(const Case& c) {
  Fixture<T> f(c);
  RowsForward<T> fwd{};
  fwd.x = f.x.data, fwd.x_stride = c.N, fwd.affine = f.affine, fwd.y = f.y.data, fwd.rstd = f.rstd.data;
  if (c.residual) fwd.residual = f.residual.data, fwd.residual_stride = c.N, fwd.summed = f.summed.data;
  if (CENTER) fwd.mean = f.mean.data;
  fwd.eps = f.kEps, fwd.samples = c.samples, fwd.M = c.M / c.samples, fwd.N = c.N, fwd.packed = f.packed(c.N);
  rows_forward<CENTER>(fwd, f.device, f.workspace());
  RowsBackward<T> bwd{};
  bwd.dy = f.dy.data, bwd.dy_stride = c.N, bwd.x = c.residual ? f.summed.data : f.x.data, bwd.x_stride = c.N;
  if (c.residual) bwd.dsummed = f.dsummed.data, bwd.dsummed_stride = c.N;
  bwd.affine = f.affine, bwd.mean = f.mean.data, bwd.rstd = f.rstd.data, bwd.dx = f.dx.data;
  bwd.samples = c.samples, bwd.M = c.M / c.samples, bwd.N = c.N, bwd.packed = f.packed(c.N);
  rows_backward<CENTER>(bwd, f.sums(CENTER), f.device, f.workspace());
  f.check(CENTER);
}

template <class T>
void check_columns(const Case& c) {
  Fixture<T> f(c);
  StridedRowsForward<T> fwd{};
  fwd.x = f.x.data, fwd.affine = f.affine, fwd.y = f.y.data, fwd.mean = f.mean.data, fwd.rstd = f.rstd.data;
  if (c.residual) fwd.residual = f.residual.data, fwd.summed = f.summed.data;
  fwd.eps = f.kEps, fwd.B = c.M, fwd.N = c.N, fwd.S = c.S, fwd.packed = f.packed(c.S);
  strided_rows_forward(fwd, f.device);
  StridedRowsBackward<T> bwd{};
  bwd.dy = f.dy.data, bwd.x = c.residual ? f.summed.data : f.x.data, bwd.affine = f.affine;
  if (c.residual) bwd.dsummed = f.dsummed.data;
  bwd.mean = f.mean.data, bwd.rstd = f.rstd.data, bwd.dx = f.dx.data;
  bwd.B = c.M, bwd.N = c.N, bwd.S = c.S, bwd.packed = f.packed(c.S);
  strided_rows_backward(bwd, f.sums(true), f.device, f.workspace());
  f.check(true);
}

template <class T>
void check_both(Case c) {
  check_rows<true, T>(c);
  check_rows<false, T>(c);
  c.bias = !c.bias;
  check_rows<false, T>(c);
}

// Rows of part of a warp, of a warp, of a block; columns.
template <class T>
void check_all() {
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
  for (const Case& c : {
           Case{5, 1, 1, "identity", true, true, true, false, true},
           Case{7, 31, 1, "gelu", false, true, true, wide, true},
           Case{9, 4 * V, 1, "silu", true, true, false, false, false},
           Case{11, 16 * V, 1, "identity", false, false, true, wide, true},
           Case{2, 150 * V, 1, "tanh", true, true, true, wide, true},
           Case{3, 100 * V + 3, 1, "identity", true, true, true, false, true},
           Case{15, 4 * V, 1, "silu", true, true, true, wide, true, true, 5},
           Case{6, 150 * V, 1, "identity", true, true, true, wide, true, true, 2},
           Case{14, 31, 1, "gelu", false, true, true, wide, true, true, 7},
       })
    check_both<T>(c);
  check_columns<T>({2, 70, 8 * V, "identity", true, true, true, wide, true});
  check_columns<T>({3, 67, 5, "mish", true, true, true, false, true});
  check_columns<T>({1, 3, 2 * V, "softplus", false, true, false, false, false});
}

int main() {
  for (const char* name : kActivationNames) check_rows<true, double>({3, 40, 1, name, true, true, true, false, true});
  check_rows<true, float>({1, 8188, 1, "identity", true, true, true, false, true, false});  // the longest of one block
  check_rows<true, float>({1, 8193, 1, "gelu_tanh", false, true, true, false, true, false});
  check_rows<false, __nv_bfloat16>({1, 16392, 1, "identity", true, true, false, true, true});  // a row of five segments
  check_rows<true, double>({18, 4104, 1, "identity", true, true, true, false, true, true, 2});  // turns of a strip
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  return report("cuda kernels on the cpu");
}
