// The sweeps of the channel family where the statistics come from a table, one line for each of the B batches:
//   y = act(clamp(z * gain) + skip), z = (x - mean) * rstd * w + b, and backward dx = a * du + b * f(x - about) + c,
// du = dy * act', zero where the clamp cut. What stands in the tables is the rule of the normaliser.
#pragma once

#include "cuda/channels/walk.cuh"

namespace normkernels::cuda {

template <typename T>
struct Tables {
  const acc_t<T>*mean, *rstd;  // (B, C)
  const acc_t<T>* gain;        // (B,) or absent
  acc_t<T> clamp;              // infinite: none
};

template <typename T>
struct TablesForward {
  Plan plan;
  const T *x, *skip;
  Affine<T> affine;
  Tables<T> tables;
  T* y;
};

// (x - mean) * scale + shift of a thread's channels
template <typename T, bool LAST, bool PACKED>
struct Scaled {
  Wide<T> mean, rstd, scale, shift;

  __device__ Scaled(const Tables<T>& tables, const Affine<T>& affine, const Walk<T, LAST, PACKED>& walk)
      : mean(walk.statistic(tables.mean)),
        rstd(walk.statistic(tables.rstd)),
        scale(walk.weight(affine)),
        shift(walk.bias(affine)) {
    const acc_t<T> gain = tables.gain == nullptr ? acc_t<T>(1) : tables.gain[walk.batch()];
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) scale.v[k] *= rstd.v[k] * gain, shift.v[k] *= gain;
  }
  __device__ acc_t<T> operator()(const Wide<T>& x, int k) const {
    return (x.v[k] - mean.v[k]) * scale.v[k] + shift.v[k];
  }
};

// The last part first: it was read last, so it may still be in the cache.
template <typename T, bool LAST, bool PACKED, bool ACTIVATED>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    channels_tables_apply_kernel(const TablesForward<T> p) {
  const Walk<T, LAST, PACKED> walk(p.plan, int64_t(gridDim.x) - 1 - blockIdx.x);
  const Scaled<T, LAST, PACKED> scaled(p.tables, p.affine, walk);
  const acc_t<T> most = p.tables.clamp;
  walk.template sweep<!ACTIVATED>({p.x, p.skip}, [&](int i, const Pack<T>(&packs)[2]) {
    const Wide<T> x = widen<T>(packs[0]), skip = widen<T>(packs[1]);
    Wide<T> u = Wide<T>::of([&](int k) { return clamp(scaled(x, k), -most, most) + skip.v[k]; });
    if constexpr (ACTIVATED) activate(u.v, p.affine.activation, p.affine.slope);
    walk.store(p.y, i, u);
  });
}

template <typename T>
struct TablesBackward {
  Plan plan;
  const T *dy, *x, *skip;
  Affine<T> affine;
  Tables<T> tables;
  bool masked;                              // du is zero where z is beyond the clamp, or not a number
  acc_t<T>* table;                          // of each part: sums of du * xhat, and of du
  const acc_t<T>*about, *by_du, *by_x, *c;  // (B, C), of dx; by_x and c may be absent: zero
  acc_t<T> power;                           // f(v) = |v|^(power - 1) sign(v)
  T *dx, *dskip;
};

// v <- |v|^(power - 1) sign(v)
template <typename T>
__device__ void deviate(Wide<T>& v, acc_t<T> power) {
  using A = acc_t<T>;
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) v.v[k] = f(v.v[k]);
  };
  if (power == A(2)) return;
  if (power == A(1)) return each([](A d) { return d > 0 ? A(1) : d < 0 ? A(-1) : d; });
  each([=](A d) { return copysign(pow(abs(d), power - A(1)), d); });
}

// body(i, x, du, du before the mask) for every step
template <bool ACTIVATED, typename T, bool LAST, bool PACKED, typename Body>
__device__ void sweep_tables(const TablesBackward<T>& p, const Walk<T, LAST, PACKED>& walk,
                             const Scaled<T, LAST, PACKED>& scaled, Body body) {
  using A = acc_t<T>;
  const A most = p.tables.clamp;
  const auto mask = [&](A z, A du) { return !p.masked || abs(z) <= most ? du : du * A(0); };
  if constexpr (ACTIVATED) {
    walk.template sweep<false>({p.dy, p.x, p.skip}, [&](int i, const Pack<T>(&packs)[3]) {
      const Wide<T> x = widen<T>(packs[1]), skip = widen<T>(packs[2]);
      Wide<T> du = widen<T>(packs[0]);
      Wide<T> u = Wide<T>::of([&](int k) { return clamp(scaled(x, k), -most, most) + skip.v[k]; });
      differentiate(u.v, p.affine.activation, p.affine.slope);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) u.v[k] *= du.v[k], du.v[k] = mask(scaled(x, k), u.v[k]);
      body(i, x, du, u);
    });
  } else {
    walk.template sweep<true>({p.dy, p.x}, [&](int i, const Pack<T>(&packs)[2]) {
      const Wide<T> x = widen<T>(packs[1]), dy = widen<T>(packs[0]);
      body(i, x, Wide<T>::of([&](int k) { return mask(scaled(x, k), dy.v[k]); }), dy);
    });
  }
}

template <typename T, bool LAST, bool PACKED, bool ACTIVATED>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    channels_tables_sums_kernel(const TablesBackward<T> p) {
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const Scaled<T, LAST, PACKED> scaled(p.tables, p.affine, walk);
  Wide<T> sum{}, sum_xhat{};
  sweep_tables<ACTIVATED>(p, walk, scaled, [&](int i, const Wide<T>& x, const Wide<T>& du, const Wide<T>&) {
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      if (!walk.holds(i, k)) continue;
      sum.v[k] += du.v[k];
      sum_xhat.v[k] += du.v[k] * (x.v[k] - scaled.mean.v[k]);
    }
  });
  sum_xhat = sum_threads<0>(walk, sum_xhat);
  walk.record(p.table, Wide<T>::of([&](int k) { return sum_xhat.v[k] * scaled.rstd.v[k]; }));
  walk.record(p.table + p.plan.rows() * p.plan.C, sum_threads<1>(walk, sum));
}

// The last part first: it may still be in the cache.
template <typename T, bool LAST, bool PACKED, bool ACTIVATED>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1)
    channels_tables_dx_kernel(const TablesBackward<T> p) {
  constexpr int V = kPack<T>;
  const Walk<T, LAST, PACKED> walk(p.plan, int64_t(gridDim.x) - 1 - blockIdx.x);
  const Scaled<T, LAST, PACKED> scaled(p.tables, p.affine, walk);
  const Wide<T> by_du = walk.statistic(p.by_du);
  Wide<T> about{}, by_x{}, c{};
  if (p.by_x != nullptr) about = walk.statistic(p.about), by_x = walk.statistic(p.by_x), c = walk.statistic(p.c);
  sweep_tables<ACTIVATED>(p, walk, scaled, [&](int i, const Wide<T>& x, const Wide<T>& du, const Wide<T>& unmasked) {
    if (p.dskip != nullptr) walk.store(p.dskip, i, unmasked);
    Wide<T> dx{};
    if (p.by_x != nullptr) {
      dx = Wide<T>::of([&](int k) { return x.v[k] - about.v[k]; });
      if constexpr (ACTIVATED) deviate<T>(dx, p.power);
    }
#pragma unroll
    for (int k = 0; k < V; ++k) dx.v[k] = du.v[k] * by_du.v[k] + (dx.v[k] * by_x.v[k] + c.v[k]);
    walk.store(p.dx, i, dx);
  });
}

// ---- host ----

template <typename T>
void channels_tables_apply(const TablesForward<T>& p, const Device& device) {
  with_layout<T>(p.plan, p.affine.activation, [&](auto last, auto packed, auto activated) {
    launch_sweep<T>(channels_tables_apply_kernel<T, last, packed, activated>, p, device);
  });
}

template <typename T>
void channels_tables_sums(const TablesBackward<T>& p, const Device& device) {
  with_layout<T>(p.plan, p.affine.activation, [&](auto last, auto packed, auto activated) {
    launch_sweep<T>(channels_tables_sums_kernel<T, last, packed, activated>, p, device);
  });
}

template <typename T>
void channels_tables_dx(const TablesBackward<T>& p, const Device& device) {
  const bool plain = p.affine.activation == Activation::kIdentity && p.power == acc_t<T>(2);
  with_layout<T>(p.plan, !plain, [&](auto last, auto packed, auto activated) {
    launch_sweep<T>(channels_tables_dx_kernel<T, last, packed, activated>, p, device);
  });
}

}  // namespace normkernels::cuda
