// The CUDA kernels of the row family with a gate, run on the CPU, against loops in long double.
#include <limits>

#include "check.h"
#include "cuda/rows/backward.cuh"
#include "cuda/rows/forward.cuh"
#include "reference.h"

using namespace normkernels::cuda;

struct Case {
  int64_t M, N;
  const char* name;  // of the activation
  int64_t samples = 1;
  bool wanted = true;  // dgate
};

// Values of T at a whole pack, and exactly
template <class T>
struct Buffer {
  std::vector<T> storage;
  T* data;

  explicit Buffer(const std::vector<double>& values) : storage(values.size() + kPack<T>), data(storage.data()) {
    while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
    for (size_t i = 0; i < values.size(); ++i) data[i] = narrow<T>(acc_t<T>(values[i]));
  }
  explicit Buffer(int64_t size) : Buffer(std::vector<double>(size, std::numeric_limits<float>::quiet_NaN())) {}
  std::vector<Real> part(int64_t begin, int64_t count) const {
    std::vector<Real> out;
    for (int64_t i = begin; i < begin + count; ++i) out.push_back(widen(data[i]));
    return out;
  }
};

// The gate is the second half of rows of 2 N values.
template <bool CENTER, class T>
void check_gated(const Case& c) {
  using A = acc_t<T>;
  constexpr double eps = 1e-5, slope = 0.125;
  const int64_t M = c.M, N = c.N, rows = M / c.samples;
  const Buffer<T> x(normal(M * N, 1, 3)), wide(normal(2 * M * N, 2)), dy(normal(M * N, 3)), dsummed(normal(M * N, 4));
  const Buffer<T> w(normal(c.samples * N, 5)), b(normal(c.samples * N, 6));
  Buffer<T> y(M * N), dx(M * N), dgate(M * N), dweight(c.samples * N), dbias(c.samples * N);
  Buffer<A> mean(M), rstd(M);
  const Affine<T> affine{{w.data, false}, {b.data, false}, A(0), A(slope), find_activation(c.name)};
  Device device{3, 40000, nullptr};
  std::vector<std::vector<A>> workspaces;
  const auto workspace = [&](int64_t n) { return workspaces.emplace_back(n).data(); };
  RowsForward<T> fwd{};
  fwd.x = x.data, fwd.x_stride = N, fwd.affine = affine, fwd.y = y.data, fwd.rstd = rstd.data;
  fwd.gate = wide.data + N, fwd.gate_stride = 2 * N, fwd.mean = CENTER ? mean.data : nullptr;
  fwd.eps = eps, fwd.samples = c.samples, fwd.M = rows, fwd.N = N, fwd.packed = N % kPack<T> == 0;
  rows_forward<CENTER>(fwd, device, workspace);
  RowsBackward<T> bwd{};
  bwd.dy = dy.data, bwd.dy_stride = N, bwd.dsummed = dsummed.data, bwd.dsummed_stride = N, bwd.x = x.data;
  bwd.x_stride = N, bwd.gate = fwd.gate, bwd.gate_stride = 2 * N, bwd.affine = affine, bwd.mean = mean.data;
  bwd.rstd = rstd.data, bwd.dx = dx.data, bwd.dgate = c.wanted ? dgate.data : nullptr;
  bwd.samples = c.samples, bwd.M = rows, bwd.N = N, bwd.packed = fwd.packed;
  rows_backward<CENTER>(bwd, LineSums<T>{nullptr, dweight.data, dbias.data, false, false, 0, N}, device, workspace);

  const std::string what = std::string(c.name) + " " + std::to_string(M) + "x" + std::to_string(N) +
                           (CENTER ? " layer " : " rms ") + std::to_string(sizeof(T)) + " bytes ";
  const double ulp = sizeof(T) == 2 ? 0x1p-8 : std::numeric_limits<A>::epsilon(), small = sizeof(T) == 8 ? 1e-9 : 2e-5;
  std::vector<Real> dw(c.samples * N), db(c.samples * N);
  for (int64_t m = 0; m < M; ++m) {
    const int64_t first = m / rows * N;
    const auto weight = w.part(first, N), gate = wide.part((2 * m + 1) * N, N), given = dy.part(m * N, N);
    Row want(x.part(m * N, N), CENTER, eps, weight, b.part(first, N), "identity", slope);
    std::vector<Real> through;
    for (int64_t n = 0; n < N; ++n) {
      const Real open = activation(c.name, gate[n], slope);
      check_close(what + "y", m * N + n, y.part(m * N + n, 1)[0], want.u[n] * open, ulp, small);
      through.push_back(given[n] * open);
      const Real wanted = given[n] * want.u[n] * derivative(c.name, gate[n], slope);
      if (c.wanted) check_close(what + "dgate", m * N + n, dgate.part(m * N + n, 1)[0], wanted, ulp, 4 * small);
    }
    want.backward(through, dsummed.part(m * N, N), CENTER, weight, "identity", slope);
    for (int64_t n = 0; n < N; ++n) {
      check_close(what + "dx", m * N + n, dx.part(m * N + n, 1)[0], want.dx[n], ulp, 4 * small * double(1 + want.rstd));
      dw[first + n] += want.du[n] * want.xhat[n];
      db[first + n] += want.du[n];
    }
  }
  for (int64_t n = 0; n < c.samples * N; ++n) {
    check_close(what + "dweight", n, dweight.part(n, 1)[0], dw[n], ulp, small * std::sqrt(M) * 4);
    check_close(what + "dbias", n, dbias.part(n, 1)[0], db[n], ulp, small * std::sqrt(M) * 4);
  }
}

// Rows of part of a warp, of a warp, of a block, of several; packed and not; shares of the rows in blocks of their own
template <class T>
void check_all() {
  const int64_t V = kPack<T>;
  for (const Case& c : {Case{7, 4 * V, "silu"}, Case{9, 31, "sigmoid"}, Case{3, 150 * V, "identity"},
                        Case{6, 16 * V, "gelu", 3}, Case{5, 33, "silu", 1, false}, Case{300, 20 * V, "silu"}}) {
    check_gated<true, T>(c);
    check_gated<false, T>(c);
  }
}

int main() {
  for (const char* name : kActivationNames) check_gated<true, double>({3, 40, name});
  check_gated<true, float>({2, 8193, "silu"});
  check_gated<false, __nv_bfloat16>({2, 16424, "sigmoid", 2});
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  return report("gates of cuda kernels on the cpu");
}
