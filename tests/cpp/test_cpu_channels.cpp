// The CPU kernels of the channel family, several at a time, against loops in long double.
#include <thread>

#include "check.h"
#include "cpu/channels/channels_last_backward.h"
#include "cpu/channels/planes_backward.h"
#include "reference.h"
#include "rounding.h"

using namespace normkernels;

struct Case {
  int64_t N, C, S, G;  // G groups of each image, or 0: batch norm
  bool last;
  const char* name;  // of the activation
  bool skip, parameters;
  int64_t run = 1;  // adjacent elements of a channel, where last
};

template <class T>
struct Checked {
  using C = compute_t<T>;
  static constexpr double kSlope = 0.125, kEps = 1e-5;
  Case c;
  Grid grid;
  std::vector<T> x, skip, dy, y, dx, dskip;
  std::vector<C> w, b, mean, var, rstd, shift, dw, db;
  int64_t lines;

  explicit Checked(const Case& c)
      : c(c),
        grid{c.N, c.C, c.S, c.G ? c.N : 1, c.G ? c.G : c.C},
        x(rounded<T>(normal(c.N * c.C * c.S, 1, 3))),
        skip(rounded<T>(normal(x.size(), 2))),
        dy(rounded<T>(normal(x.size(), 3))),
        y(x.size()),
        dx(x.size()),
        dskip(x.size()),
        w(rounded<C>(normal(c.C, 5))),
        b(rounded<C>(normal(c.C, 6))),
        mean(grid.B * grid.G),
        var(mean),
        rstd(mean),
        shift(mean),
        lines(chunks(grid)) {
    dw.resize(lines * c.C);
    db.resize(lines * c.C);
    Activation activation{};
    CHECK(find_activation(c.name, activation), "%s", c.name);
    const Affine<C> affine{.weight = c.parameters ? w.data() : nullptr,
                           .bias = c.parameters ? b.data() : nullptr,
                           .activation = activation,
                           .slope = C(kSlope)};
    const Channels<T> channels{.grid = grid,
                               .x = x.data(),
                               .skip = c.skip ? skip.data() : nullptr,
                               .affine = affine,
                               .mean = mean.data(),
                               .var = var.data(),
                               .rstd = rstd.data(),
                               .eps = kEps,
                               .shift = shift.data()};
    const Forward<T> forwards{.of = channels, .y = y.data()};
    c.last ? forward_channels_last(forwards, c.run) : forward_planes(forwards);
    const bool wanted = c.skip && activation != Activation::identity;
    const Backward<T> backwards{.of = channels,
                                .dy = dy.data(),
                                .dx = dx.data(),
                                .dskip = wanted ? dskip.data() : nullptr,
                                .dweight = dw.data(),
                                .dbias = db.data()};
    c.last ? backward_channels_last(backwards, c.run) : backward_planes(backwards);
  }

  int64_t at(int64_t n, int64_t channel, int64_t s) const {
    if (c.last) return (n * c.S + s / c.run * c.run) * c.C + channel * c.run + s % c.run;
    return (n * c.C + channel) * c.S + s;
  }

  // Every statistic as a row whose bias holds the skip
  void check() const {
    const double ulp = kRounding<T>, small = sizeof(T) == 8 ? 1e-9 : 2e-5;
    const std::string what = std::string(c.name) + " " + std::to_string(c.N) + "x" + std::to_string(c.C) + "x" +
                             std::to_string(c.S) + " G " + std::to_string(c.G) + (c.last ? " last " : " ") +
                             std::to_string(sizeof(T)) + " bytes ";
    std::vector<Real> want_dw(c.C), want_db(c.C);
    for (int64_t k = 0; k < grid.B * grid.G; ++k) {
      std::vector<int64_t> places, channel;
      std::vector<Real> values, weights, biases, cotangents;
      for (int64_t n = k / grid.G * grid.images(); n < (k / grid.G + 1) * grid.images(); ++n)
        for (int64_t i = k % grid.G * grid.channels(); i < (k % grid.G + 1) * grid.channels(); ++i)
          for (int64_t s = 0; s < c.S; ++s) places.push_back(at(n, i, s)), channel.push_back(i);
      for (size_t i = 0; i < places.size(); ++i) {
        values.push_back(load(x[places[i]]));
        weights.push_back(c.parameters ? w[channel[i]] : 1);
        biases.push_back((c.parameters ? b[channel[i]] : 0) + (c.skip ? Real(load(skip[places[i]])) : 0));
        cotangents.push_back(load(dy[places[i]]));
      }
      Row want(values, true, kEps, weights, biases, c.name, kSlope);
      want.backward(cotangents, std::vector<Real>(values.size()), true, weights, c.name, kSlope);
      check_close(what + "mean", k, mean[k], want.mean, small, small);
      check_close(what + "var", k, var[k], 1 / (want.rstd * want.rstd) - kEps, small, small);
      for (size_t i = 0; i < places.size(); ++i) {
        check_close(what + "y", places[i], load(y[places[i]]), want.y[i], ulp, small);
        check_close(what + "dx", places[i], load(dx[places[i]]), want.dx[i], ulp, 4 * small * double(1 + want.rstd));
        if (c.skip && std::string(c.name) != "identity")
          check_close(what + "dskip", places[i], load(dskip[places[i]]), want.du[i], ulp, small);
        want_dw[channel[i]] += want.du[i] * want.xhat[i];
        want_db[channel[i]] += want.du[i];
      }
    }
    for (int64_t i = 0; i < c.C; ++i) {
      Real got_dw = 0, got_db = 0;
      for (int64_t line = 0; line < lines; ++line) got_dw += dw[line * c.C + i], got_db += db[line * c.C + i];
      check_close(what + "dweight", i, got_dw, want_dw[i], ulp, 4 * small * std::sqrt(c.N * c.S));
      check_close(what + "dbias", i, got_db, want_db[i], ulp, 4 * small * std::sqrt(c.N * c.S));
    }
  }
};

template <class T>
void check_all() {
  Checked<T>({1, 7, 9 * 12, 0, true, "relu", true, true, 12}).check();
  for (const bool last : {false, true}) {
    for (const Case& c :
         {Case{3, 5, 35, 0, last, "identity", true, true}, Case{2, 6, 49, 3, last, "silu", true, true},
          Case{2, 33, 40, 33, last, "relu", true, true}, Case{1, 64, 70, 16, last, "leaky_relu", false, true},
          Case{4, 3, 1030, 1, last, "gelu", false, false}, Case{7, 96, 1, 4, last, "relu", false, true},
          Case{1, 2, 70001, 0, last, "relu", true, true}})
      Checked<T>(last && c.G == 0 ? Case{1, c.C, c.N * c.S, 0, last, c.name, c.skip, c.parameters} : c).check();
  }
}

int main() {
  std::vector<std::thread> threads;  // kernels called from several threads at once, each with threads of its own
  threads.emplace_back(check_all<double>);
  threads.emplace_back(check_all<float>);
  threads.emplace_back(check_all<bfloat16>);
  threads.emplace_back(check_all<float16>);
  for (std::thread& thread : threads) thread.join();
  return report("cpu channels");
}
