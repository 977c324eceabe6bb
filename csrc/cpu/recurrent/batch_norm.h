// Batch norm in a recurrent layer on the CPU: each column of the rows of one step.
#pragma once

#include "cpu/channels/tiles.h"
#include "cpu/recurrent/layer_norm.h"
#include "cpu/strided_rows/forward.h"

namespace normkernels {

template <class T>
struct BatchNorm {
  using C = compute_t<T>;
  int64_t columns;
  double eps;
  bool training;           // whether the statistics are those of the step
  const C *weight, *bias;  // or null
  Scratch<C> scale, shift, rstd;

  BatchNorm(int64_t columns, double eps, bool training, const C* weight, const C* bias)
      : columns(columns),
        eps(eps),
        training(training),
        weight(weight),
        bias(bias),
        scale(columns),
        shift(columns),
        rstd(columns) {
    if (bias) std::copy(bias, bias + columns, shift.begin());
  }

  template <class F>
  void each_strip(const F& f) const {
    for_each((columns + kStrip - 1) / kStrip,
             [&](int64_t s) { f(s * kStrip, std::min(kStrip, columns - s * kStrip)); });
  }

  // The statistics of n rows in training; then what a row needs.
  void prepare(const T* a, int64_t n, C* mean, C* var) {
    if (training) each_strip([&](int64_t j, int64_t k) { measure(a + j, n, mean + j, var + j, k); });
    scales(var);
  }
  void scales(const C* var) {
    for (int64_t j = 0; j < columns; j++) {
      rstd[j] = static_cast<C>(1 / std::sqrt(var[j] + eps));
      scale[j] = weight ? rstd[j] * weight[j] : rstd[j];
    }
  }

  void measure(const T* a, int64_t n, C* mean, C* var, int64_t k) const {
    StripBuffers<C> buffers(mean, nullptr);
    buffers.sum_units(n, k, [&](int64_t b) { add_units(a + b * columns, buffers.a, k); });
    for (int64_t i = 0; i < k; i++) mean[i] = static_cast<C>(buffers.total_a[i] / n);
    buffers.sum_units(n, k, [&](int64_t b) { centred_sums(a + b * columns, mean, buffers.a, buffers.b, k); });
    for (int64_t i = 0; i < k; i++) {
      const double left = buffers.total_a[i] / n;  // what rounding left in the mean
      var[i] = static_cast<C>((buffers.total_b[i] - left * buffers.total_a[i]) / n);
      mean[i] = static_cast<C>(mean[i] + left);
    }
  }

  // q of a row
  void affine(const T* a, const C* mean, C* q) const {
    scale_tile(a, static_cast<const T*>(nullptr), Scale<const C*>{mean, scale.data(), shift.data()}, q, columns);
  }

  // da of n rows, which may be dq; dweight and dbias (or null) are added to
  void backward(const C* dq, const T* a, int64_t n, const C* mean, T* da, C* dweight, C* dbias) const {
    each_strip([&](int64_t j, int64_t k) {
      StripBuffers<C> buffers(mean + j, rstd.data() + j);
      C unused = 0;
      buffers.sum_units(n, k, [&](int64_t b) {
        gradient_strip(dq + b * columns + j, a + b * columns + j, buffers.strip, C(1), unused, unused, k);
      });
      for (int64_t i = 0; i < k; i++) {
        if (dweight) dweight[j + i] += static_cast<C>(buffers.total_b[i]);
        if (dbias) dbias[j + i] += static_cast<C>(buffers.total_a[i]);
        const double factor = training ? -static_cast<double>(scale[j + i]) / n : 0;
        buffers.a[i] = static_cast<C>(factor * buffers.total_a[i]);
        buffers.b[i] = static_cast<C>(factor * rstd[j + i] * buffers.total_b[i]);
      }
      const Blend<const C*> blend = {mean + j, scale.data() + j, buffers.b, buffers.a};
      for (int64_t b = 0; b < n; b++)
        blend_tile(dq + b * columns + j, a + b * columns + j, blend, da + b * columns + j, k);
    });
  }
};

}  // namespace normkernels
