// The CUDA kernels of weight norm and weight standardisation, run on the CPU, against loops in long double.
#include <cstring>
#include <map>

#include "buffer.h"
#include "check.h"
#include "cuda/filters/backward.cuh"
#include "cuda/filters/forward.cuh"
#include "cuda/filters/project.cuh"

using namespace normkernels::cuda;

constexpr double kEps = 1e-5;
const Device kDevice{3, 400000, nullptr};

template <class T>
constexpr double kSmall = sizeof(acc_t<T>) == 8 ? 1e-9 : 4e-5;

// x in X, y in T: weight norm, or CENTER weight standardisation; row 1 is of zeros
template <bool CENTER, class T, class X>
void check_filters(int64_t M, int64_t N, bool gained, bool wide_gain, bool aligned) {
  using A = acc_t<T>;
  const std::string what = std::string(CENTER ? "standardisation " : "weight norm ") + std::to_string(M) + "x" +
                           std::to_string(N) + " " + std::to_string(sizeof(T)) + " bytes ";
  auto values = normal(M * N, 1, 0.5, 2);
  for (int64_t i = 0; M > 1 && i < N; ++i) values[N + i] = 0;
  const bool is_float = wide_gain || (sizeof(T) == 2 && sizeof(X) == 4);
  const Buffer<X> x(values, aligned);
  const Buffer<T> dy(normal(M * N, 2), aligned);
  const Numbers<T> gain(normal(M, 3), gained, is_float);
  const Numbers<T> dgain(std::vector<double>(M, NAN), gained, is_float);
  Buffer<T> y(M * N, aligned);
  Buffer<X> dx(M * N, aligned);
  Buffer<A> mean(M), statistic(M);
  Room<T> room;
  FiltersForward<T, X> f{};
  f.filters.M = M, f.filters.N = N, f.filters.packed = aligned && N % kPack<T> == 0;
  f.x = x.data, f.gain = gain.parameter(), f.y = y.data, f.mean = mean.data, f.statistic = statistic.data, f.eps = kEps;
  filters_forward<CENTER>(f, kDevice, [&](int64_t n) { return room(n); });
  FiltersBackward<T, X> b{};
  b.filters = f.filters, b.dy = dy.data, b.x = x.data, b.gain = f.gain, b.mean = mean.data;
  b.statistic = statistic.data, b.dx = dx.data, b.dgain = dgain.data(), b.dgain_is_float = is_float;
  filters_backward<CENTER>(b, kDevice, [&](int64_t n) { return room(n); });

  for (int64_t m = 0; m < M; ++m) {
    Real mu = 0, squares = 0, along = 0, sum = 0;
    for (int64_t i = m * N; i < m * N + N; ++i) mu += CENTER ? x[i] / N : 0;
    for (int64_t i = m * N; i < m * N + N; ++i) squares += (x[i] - mu) * (x[i] - mu);
    const Real kept = CENTER ? 1 / std::sqrt(squares / N + kEps) : std::sqrt(squares);
    const Real r = CENTER ? kept : kept > 0 ? 1 / kept : 0, g = gained ? gain[m] : 1;
    for (int64_t i = m * N; i < m * N + N; ++i) along += dy[i] * (x[i] - mu) * r, sum += dy[i];
    const Real c0 = CENTER ? along / N : along, c1 = CENTER ? sum / N : 0;
    if (CENTER) check_close(what + "mean", m, mean[m], mu, kSmall<T>, kSmall<T>);
    check_close(what + "statistic", m, statistic[m], kept, kSmall<T>, 0);
    if (gained)
      check_close(what + "dgain", m, dgain[m], along, is_float ? 0 : kUlp<T>, 4 * kSmall<T> * std::sqrt(double(N)));
    for (int64_t i = m * N; i < m * N + N; ++i) {
      const Real xhat = (x[i] - mu) * r, dx_want = g * r * (dy[i] - c1 - xhat * c0);
      check_close(what + "y", i, y[i], g * xhat, kUlp<T>, kSmall<T>);
      check_close(what + "dx", i, dx[i], dx_want, kUlp<X>, 4 * kSmall<T> * double(1 + std::fabs(g * r)));
    }
  }
}

// More tensors than one launch takes, of filters of part of a warp, of a block, and longer ones.
template <class T>
void check_project() {
  const int64_t V = kPack<T>, lengths[] = {4 * V, 1, 27, 140 * V, 5, 300, 2200 * V};
  std::vector<Buffer<T>> tensors, before;
  const auto rows = [&](int t) { return 1 + t % 11; };
  const auto length = [&](int t) { return lengths[t < 7 ? t : t % 3]; };
  const auto aligned = [](int t) { return t % 5 != 1; };
  for (int t = 0; t < kMostProjected + 9; ++t) {
    auto values = normal(rows(t) * length(t), t);
    if (t % 3 == 0) std::fill_n(values.begin(), length(t), 0);
    tensors.emplace_back(values, aligned(t)), before.emplace_back(values);
  }
  filters_project<T>(tensors.size(), kDevice, [&](int t) {
    return ProjectedTensor<T>{tensors[t].data, rows(t), length(t), 0, 0, aligned(t) && length(t) % V == 0};
  });
  for (size_t t = 0; t < tensors.size(); ++t)
    for (int64_t m = 0, N = length(t); m < rows(t); ++m) {
      Real squares = 0;
      for (int64_t i = m * N; i < m * N + N; ++i) squares += before[t][i] * before[t][i];
      const Real r = squares > 0 ? 1 / std::sqrt(squares) : 0;
      for (int64_t i = m * N; i < m * N + N; ++i)
        check_close("project", i, tensors[t][i], before[t][i] * r, kUlp<T>, kSmall<T>);
    }
}

template <class T, class X = T>
void check_all_filters() {
  const int64_t V = kPack<T>, most = kFilterLength<T>;
  for (const auto& [M, N] : std::vector<std::pair<int64_t, int64_t>>{
           {5, 1}, {37, 27}, {9, 4 * V}, {3, 150 * V}, {2, 1000 * V + 3}, {2, most}, {7, most + V}, {2, most + 5}})
    for (const bool aligned : {true, false}) {
      if (M == 2 && !aligned) continue;
      check_filters<false, T, X>(M, N, true, sizeof(T) == 2 && aligned, aligned);
      if constexpr (std::is_same_v<T, X>) check_filters<true, T, T>(M, N, aligned, sizeof(T) == 2, aligned);
    }
}

int main() {
  check_all_filters<float>();
  check_all_filters<double>();
  check_all_filters<__nv_bfloat16>();
  check_project<float>();
  check_project<double>();
  check_project<__nv_bfloat16>();
  check_all_filters<__half, float>();
  check_all_filters<__nv_bfloat16, float>();
  return report("cuda kernels of filters on the cpu");
}
