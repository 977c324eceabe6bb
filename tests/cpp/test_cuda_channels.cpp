// The CUDA kernels of the channel family, run on the CPU, against loops in long double.
#include <cstring>

#include "buffer.h"
#include "check.h"
#include "cuda/channels/resident_backward.cuh"
#include "cuda/channels/resident_forward.cuh"
#include "reference.h"

using namespace normkernels::cuda;

struct Case {
  int64_t N, C, S, G;  // G groups of each image, or 0: batch norm
  bool last;
  const char* name;  // of the activation
  bool skip, parameters, float_parameters, aligned;
  bool training = true, apart = false;  // apart: sweep by sweep, even where a block holds a statistic
  double centre = 3, spread = 1;        // of x
  bool gated = false;                   // skip is a gate
};

template <class T>
struct Fixture {
  using A = acc_t<T>;
  static constexpr double kEps = 1e-5, kSlope = 0.125;
  Case c;
  int64_t B, G, count;
  Buffer<T> x, skip, dy, y, dx, dskip, w, b, dweight, dbias;
  Buffer<float> wide_w, wide_b;
  Buffer<A> mean, var, sum, sum_xhat;
  Affine<T> affine;
  Plan plan;
  Device device{3, 40000, nullptr};
  std::vector<std::vector<A>> workspaces;

  explicit Fixture(const Case& c)
      : c(c),
        B(c.G == 0 ? 1 : c.N),
        G(c.G == 0 ? c.C : c.G),
        count(c.N * c.C * c.S),
        x(normal(count, 1, c.centre, c.spread), c.aligned),
        skip(normal(count, 2), c.aligned),
        dy(normal(count, 3), c.aligned),
        y(count, c.aligned),
        dx(count, c.aligned),
        dskip(count, c.aligned),
        w(normal(c.C, 5, 1), c.aligned),
        b(normal(c.C, 6), c.aligned),
        dweight(c.C),
        dbias(c.C),
        wide_w(normal(c.C, 5, 1)),
        wide_b(normal(c.C, 6)),
        mean(c.training ? std::vector<double>(B * G, NAN) : normal(B * G, 7, 3)),
        var(c.training ? std::vector<double>(B * G, NAN) : normal(B * G, 8, 1, 0.1)),
        sum(c.C),
        sum_xhat(c.C),
        affine{{}, {}, 0, A(kSlope), find_activation(c.name)},
        plan(make_plan<T>(c.N, c.C, c.S, B, G, c.last, c.aligned)) {
    if (!c.parameters) return;
    affine.weight = {c.float_parameters ? static_cast<void*>(wide_w.data) : w.data, c.float_parameters};
    affine.bias = {c.float_parameters ? static_cast<void*>(wide_b.data) : b.data, c.float_parameters};
  }

  auto workspace() {
    return [this](int64_t n) { return workspaces.emplace_back(n + 4, std::numeric_limits<A>::quiet_NaN()).data(); };
  }
  Real weight(int64_t i) const { return !c.parameters ? 1 : c.float_parameters ? wide_w[i] : w[i]; }
  Real bias(int64_t i) const { return !c.parameters ? 0 : c.float_parameters ? wide_b[i] : b[i]; }
  int64_t at(int64_t n, int64_t i, int64_t s) const {
    return c.last ? (n * c.S + s) * c.C + i : (n * c.C + i) * c.S + s;
  }

  void forward() {
    ChannelsForward<T> p{};
    p.plan = plan, p.x = x.data, p.affine = affine, p.mean = mean.data, p.var = var.data, p.eps = kEps, p.y = y.data;
    p.gated = c.gated, p.skip = c.skip ? skip.data : nullptr;
    if (c.training && !c.apart) return channels_forward(p, device, workspace());
    if (c.training) channels_moments(p, device, workspace());
    channels_apply(p, device);
  }

  void backward() {
    ChannelsBackward<T> p{};
    p.plan = plan, p.dy = dy.data, p.x = x.data, p.affine = affine, p.mean = mean.data, p.var = var.data, p.eps = kEps;
    p.dx = dx.data, p.gated = c.gated, p.skip = c.skip ? skip.data : nullptr, p.dskip = c.skip ? dskip.data : nullptr;
    p.sums = {nullptr, dweight.data, dbias.data, false, false, 0, c.C};
    if (!c.apart) return channels_backward(p, c.training, device, workspace());
    if (c.G != 0) return swept_channels_backward(p, c.training, device, workspace());
    p.sums = {nullptr, sum_xhat.data, sum.data, sizeof(A) == 4, sizeof(A) == 4, 0, c.C};
    channels_sums(p, device, workspace());
    for (int64_t i = 0; i < c.C; ++i) {
      dweight.data[i] = narrow<T>(sum_xhat.data[i]), dbias.data[i] = narrow<T>(sum.data[i]);
      sum.data[i] /= c.N * c.S, sum_xhat.data[i] /= c.N * c.S;
    }
    p.mean_g = sum.data, p.mean_g_xhat = sum_xhat.data, p.of_du = true;
    channels_dx(p, device);
  }

  // f(image, channel, place) for the elements of a statistic
  template <class F>
  void each(int64_t statistic, F f) const {
    const int64_t images = c.N / B, channels = c.C / G;
    for (int64_t n = statistic / G * images; n < (statistic / G + 1) * images; ++n)
      for (int64_t i = statistic % G * channels; i < (statistic % G + 1) * channels; ++i)
        for (int64_t s = 0; s < c.S; ++s) f(n, i, at(n, i, s));
  }

  void check() {
    const std::string what = std::string(c.name) + " " + std::to_string(c.N) + "x" + std::to_string(c.C) + "x" +
                             std::to_string(c.S) + "/" + std::to_string(c.G) + (c.last ? " last " : " ") +
                             std::to_string(sizeof(T)) + " bytes ";
    const double ulp = sizeof(T) == 2 ? 0x1p-8 : sizeof(T) == 4 ? 0x1p-23 : 0x1p-52;
    const double small = sizeof(T) == 8 ? 1e-9 : 2e-5, number = Real(count) / (B * G);
    std::vector<Real> dw(c.C), db(c.C), du(count), xhat(count);
    for (int64_t t = 0; t < B * G; ++t) {
      Real m = 0, v = 0, c1 = 0, c2 = 0;
      each(t, [&](int64_t, int64_t, int64_t e) { m += x[e] / number; });
      each(t, [&](int64_t, int64_t, int64_t e) { v += (x[e] - m) * (x[e] - m) / number; });
      if (!c.training) m = mean[t], v = var[t];
      const Real rstd = 1 / std::sqrt(v + kEps);
      // a mean is rounded once, and the rest follows from that one
      const double off = (sizeof(T) == 8 ? 0x1p-53 : 0x1p-24) * std::fabs(double(m * rstd));
      check_close(what + "mean", t, mean[t], m, sizeof(T) == 8 ? 0x1p-53 : 0x1p-24, small * double(std::sqrt(v)));
      check_close(what + "var", t, var[t], v, small, 0);
      each(t, [&](int64_t n, int64_t i, int64_t e) {
        xhat[e] = (x[e] - m) * rstd;
        const Real u = xhat[e] * weight(i) + bias(i) + (c.skip && !c.gated ? skip[e] : 0), in = c.gated ? skip[e] : u;
        const Real opened = activation(c.name, in, kSlope), slope = derivative(c.name, in, kSlope);
        check_close(what + "y", e, y[e], c.gated ? u * opened : opened, ulp, 2 * small + 4 * off);
        du[e] = dy[e] * (c.gated ? opened : slope);
        dw[i] += du[e] * xhat[e], db[i] += du[e];
        c1 += c.training ? du[e] * weight(i) / number : 0;
        c2 += c.training ? du[e] * weight(i) * xhat[e] / number : 0;
        if (c.skip) check_close(what + "dskip", e, dskip[e], c.gated ? dy[e] * u * slope : du[e], ulp, 4 * small);
      });
      each(t, [&](int64_t, int64_t i, int64_t e) {
        check_close(what + "dx", e, dx[e], rstd * (du[e] * weight(i) - c1 - xhat[e] * c2), ulp,
                    (4 * small + 4 * off) * double(1 + rstd));
      });
    }
    const double off = (sizeof(T) == 8 ? 0x1p-53 : 0x1p-24) * std::fabs(c.centre / c.spread);
    for (int64_t i = 0; i < c.C; ++i) {
      const double most = 4 * (small + off) * std::sqrt(double(c.N * c.S));
      check_close(what + "dweight", i, dweight[i], dw[i], ulp, most);
      check_close(what + "dbias", i, dbias[i], db[i], ulp, most);
    }
  }
};

template <class T>
void check(const Case& c, bool gated = false) {
  Fixture<T> f(c);
  f.c.gated = gated, f.forward();
  f.backward();
  f.check();
}

// Bit for bit: an image among others gives what it gives alone.
template <class T>
void check_alone(Case c) {
  Fixture<T> all(c);
  c.N = 1;
  Fixture<T> one(c);
  std::memcpy(one.x.data, all.x.data + all.count / 3, one.count * sizeof(T));
  std::memcpy(one.dy.data, all.dy.data + all.count / 3, one.count * sizeof(T));
  for (Fixture<T>* f : {&all, &one}) f->forward(), f->backward();
  const auto same = [&](const T* many, const T* single) {
    return std::memcmp(many + all.count / 3, single, one.count * sizeof(T)) == 0;
  };
  CHECK(same(all.y.data, one.y.data) && same(all.dx.data, one.dx.data), "%s: image 1 of 3 is not as alone", c.name);
}

// Several planes of a block, warps, blocks, several parts; channels within a block's tile and beyond.
template <class T>
void check_all() {
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
  for (const Case& c : {
           Case{3, 5, 49, 0, false, "relu", true, true, wide, true},
           Case{2, 6, 4 * V, 2, false, "identity", true, true, wide, true},
           Case{2, 4, 40 * V, 4, false, "identity", false, true, false, true},
           Case{2, 2, 40 * V + 3, 1, false, "identity", true, true, false, true},
           Case{1, 4, 260 * V, 2, false, "silu", true, true, wide, true},
           Case{1, 2, 33 * V, 1, false, "gelu", false, false, false, false},
           Case{3, 5, 8 * V, 0, false, "gelu", true, true, wide, true},
           Case{2, 2 * V, V + 1, 2, false, "identity", true, true, wide, true},
           Case{2, 6, 4 * V, 2, false, "gelu_tanh", true, true, wide, true, true, true},
           Case{2, 2, 40 * V, 2, false, "identity", false, true, wide, true, true, true},
           Case{2, 3, 16 * V, 0, false, "tanh", true, true, wide, true, false},
           Case{3, 3, 2 * V, 0, false, "softplus", true, true, wide, true, true, true},
           Case{1, 10 * V, 700, 0, true, "identity", true, true, wide, true},
           Case{2, 2 * V, 1100 / V * 2, V, true, "mish", true, true, wide, true},
           Case{3, 10 * V, 7, 2 * V, true, "identity", false, true, false, true},
           Case{2, 9, 33, 3, true, "leaky_relu", true, true, wide, true},
           Case{2, 9 * V + 1, 5, 9 * V + 1, true, "elu", false, true, wide, true},
           Case{1, 2 * V, 35, 0, true, "silu", true, true, false, false, false},
           Case{1, V, 300, 0, true, "hardswish", false, true, wide, true, true, true},
           Case{2, 1, 1, 1, true, "identity", false, false, false, true, false},
       })
    for (const bool gated : {false, true})
      if (c.skip || !gated) check<T>(c, gated);
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  for (const char* name : kActivationNames) check<double>({2, 3, 20, 0, false, name, true, true, false, true});
  check<float>({1, 2, 8200, 1, false, "identity", true, true, false, true});  // two parts of a block each
  check<float>({1, 40, 300, 10, true, "identity", true, true, false, true});
  check<float>({300, 2, 9, 0, false, "relu", true, true, false, true});  // more parts than a block merges
  for (const bool last : {false, true})                                  // a mean far from zero
    for (const bool apart : {false, true})
      check<float>({2, 8, 1100, 8, last, "identity", false, true, false, true, true, apart, 1e4, 1e-2});
  check<float>({1, 4, 1152, 1, false, "identity", true, true, false, true});  // many warps of one statistic
  for (const bool apart : {false, true})
    check_alone<float>({3, 8, 1100, 2, false, "silu", false, true, false, true, true, apart});
  check_alone<__nv_bfloat16>({3, 24, 70, 4, true, "identity", false, true, true, true});
  return report("cuda kernels of channels on the cpu");
}
