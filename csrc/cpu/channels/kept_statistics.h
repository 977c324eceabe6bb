// What is kept of the statistics of small planes, of which there are more than of elements.
#pragma once

#include <cmath>

#include "cpu/base/tiles.h"

namespace normkernels {

// Whether a statistic lost too much when it was kept: far from 0, or var beyond C
template <class C>
NK_INLINE bool lost(C mean, C var, C rstd, double eps) {
  const double sum = var + eps;
  return (std::fabs(mean) * rstd > kNear) | !((sum > 1e-30) & (sum < 1e37));
}

// Where what is known of some statistics goes: mean and var, unless again says that they are there, rounded; rstd and
// shift, unless that is null. Again only those that are lost are put there: others found with them stay as they were.
template <class C>
struct Kept {
  C *mean, *var, *rstd, *shift;
  double eps;
  bool again;

  // A variance beyond C is kept as a number from which a running one recovers.
  template <bool kMoments, bool kScale>
  NK_INLINE void put(int64_t i, double of_mean, double of_var) const {
    constexpr double kMost = static_cast<double>(std::numeric_limits<C>::max()) / 2;
    const C rounded = kMoments ? static_cast<C>(of_mean) : mean[i];
    if constexpr (kMoments) {
      mean[i] = rounded;
      var[i] = static_cast<C>(kMost < of_var ? kMost : of_var);
    }
    if constexpr (kScale) {
      const bool wanted = kMoments || lost(mean[i], var[i], rstd[i], eps);
      const C inverse = static_cast<C>(1 / std::sqrt(of_var + eps));
      rstd[i] = wanted ? inverse : rstd[i];
      shift[i] = wanted ? static_cast<C>(-(of_mean - rounded) * inverse) : shift[i];
    }
  }

  // f(put): it with what there is to do
  template <class F>
  NK_INLINE void with_put(const F& f) const {
    const Kept to = *this;
    if (again) {
      f([=](int64_t i, double m, double v) NK_INLINED { to.put<false, true>(i, m, v); });
    } else if (shift) {
      f([=](int64_t i, double m, double v) NK_INLINED { to.put<true, true>(i, m, v); });
    } else {
      f([=](int64_t i, double m, double v) NK_INLINED { to.put<true, false>(i, m, v); });
    }
  }
};

// From the sums over count values of x - about and of its square:

// Moves about to the mean where it was too far off; whether it did for any
template <class C>
bool move_about(const Pair<double>* sums, double count, C* about, int64_t n);

// Keeps mean and var; whether C held the squares of all.
template <class C>
bool keep_sums(const Pair<double>* sums, double count, const C* about, const Kept<C>& to, int64_t n);

}  // namespace normkernels
