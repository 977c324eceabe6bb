// Mathematics on tiles whose elements share a channel (a run of one plane) or lie one per channel (a row of channels).
#pragma once

#include "cpu/base/tiles.h"

namespace normkernels {

// A coefficient that is the same for the whole tile, where a pointer gives one for each element.
template <class C>
struct Same {
  C value;
  NK_INLINE C operator[](int64_t) const { return value; }
};

// Activations that only let through or scale: cheap enough to be part of every loop.
enum class Gate { none, relu, leaky_relu };

// u = gate((x - mean) * scale + shift + skip); slope: of leaky_relu
template <class K>
struct Scale {
  K mean, scale, shift;
  Gate gate = Gate::none;
  double slope = 0;
};

// dx = a * du + b * (x - mean) + c
template <class K>
struct Blend {
  K mean, a, b, c;
};

// What dx needs of one statistic: the sums of g and g * xhat of its channels, then their means.
struct Means {
  double g = 0, g_xhat = 0;
};

// The coefficients, in C, of dx = rstd * (du * w - means.g - xhat * means.g_xhat), xhat = (x - mean) * rstd + shift
template <class C>
NK_INLINE Blend<Same<C>> blend_of(C mean, C rstd, C w, double shift, const Means& means) {
  const double rest = means.g + shift * means.g_xhat;
  return {{mean}, {rstd * w}, {static_cast<C>(-rstd * rstd * means.g_xhat)}, {static_cast<C>(-rstd * rest)}};
}

// Adjacent groups of D channels each, and the parameters of these channels.
template <class C>
struct Groups {
  int64_t count, D;
  const C *mean, *rstd, *shift;  // of each group; shift: or null for zeros, where nothing is differentiated
  const C *weight, *bias;        // of each channel, or null
};

// The coefficients of every channel; how its sums go into those of its group; sums over groups: coefficients.cpp.

// mean, rstd * w and b + shift * w
template <class C>
void scale_channels(const Groups<C>& of, C* mean, C* scale, C* shift);

// Those of blend_of; about: of each group, the mean or what dx is centred about
template <class C>
void blend_channels(const Groups<C>& of, const C* about, const Means* means, C* mean, C* a, C* b, C* c);

// From the sums of du (a) and of du * (x - mean) (b) of every channel: adds to the sums of g and g * xhat of its group,
// and to the gradients of bias and weight, where they are wanted.
template <class C, class S>
void add_channels(const Groups<C>& of, const S* a, const S* b, Means* means, C* dbias, C* dweight);

// Adds a and b of the channels of each group to its sums
template <class S>
void add_groups(const S* a, const S* b, int64_t count, int64_t D, Pair<double>* sums);

// u, as the compute type or rounded to T; skip may be null. Here and below what is written is part of so many results,
// whose lines are asked for.
template <class T, class K, class Out>
void scale_tile(const T* x, const T* skip, const Scale<K>& k, Out* u, int64_t n, int64_t results = 0);

// y = f(u), f one of those that are part of a loop; nontemporal: past the caches, where y is whole lines
template <class K>
void scale_activated(const float* x, const float* skip, const Scale<K>& k, Activation f, float* y, int64_t n,
                     bool nontemporal);

// du = dy * gate'(u), as the compute type or T
template <class T, class K, class Out>
void gate_tile(const T* dy, const T* x, const T* skip, const Scale<K>& k, Out* du, int64_t n);

// dx = a * du + b * (x - mean) + c
template <class T, class K, class D>
void blend_tile(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n, int64_t results = 0);

// The three for so many adjacent planes of n positions, with a coefficient for each: planes.cpp.
template <class T, class Out>
void scale_planes(const T* x, const T* skip, const Scale<const compute_t<T>*>& k, Out* u, int64_t planes, int64_t n,
                  int64_t results = 0);
template <class T>
void gate_planes(const T* dy, const T* x, const T* skip, const Scale<const compute_t<T>*>& k, T* du, int64_t planes,
                 int64_t n);
template <class T, class D>
void blend_planes(const D* du, const T* x, const Blend<const compute_t<T>*>& k, T* dx, int64_t planes, int64_t n,
                  int64_t results);

// The first and the third for rows of channels of a small image, n of each: coefficients stay in registers while the
// rows go by. column_maps.cpp.
void scale_columns(const float* x, const Scale<const float*>& k, float* y, int64_t rows, int64_t n);
void blend_columns(const float* du, const float* x, const Blend<const float*>& k, float* dx, int64_t rows, int64_t n);

// For results that will have left the caches before anybody reads them; nontemporal_fence() orders them.
template <class T, class K>
void scale_nontemporal(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n);
template <class T>
void store_nontemporal(const compute_t<T>* tile, T* y, int64_t n);
template <class T, class K, class D>
void blend_nontemporal(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n);

// rstd = (var + eps)^(-1/2), taken in double
template <class C>
void rstd_tile(const C* var, double eps, C* rstd, int64_t n);

// Sums over a run of one plane: plane_sums.cpp; down the columns of rows of channels: column_sums.cpp.

// Moments from one read: sums about a value near the mean, taken again about the mean if that was too far off.
template <class T>
Moments moments_about(const T* x, compute_t<T> about, int64_t n, double eps);

// The sums of du and du * (x - mean)
template <class T, class D>
Pair<compute_t<T>> sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n);

constexpr int64_t kOneByOne = 256;  // positions of a plane that is not added up together with others

// The same of so many adjacent planes of n positions, each about its own value, in a and b: of x - about and its
// square, of du and du * (x - mean).
template <class T>
void moments_of_planes(const T* x, const compute_t<T>* about, int64_t planes, int64_t n, compute_t<T>* a,
                       compute_t<T>* b);
template <class T, class D>
void sums_of_planes(const D* du, const T* x, const compute_t<T>* mean, int64_t planes, int64_t n, compute_t<T>* a,
                    compute_t<T>* b);

constexpr int64_t kBand = 64;  // columns whose sums stay in registers, if there are just as many, or twice as many

// How many columns are best taken at once: AVX-512 has room for two bands of floats, and jumps cost.
template <class C>
int64_t columns_at_once() {
#if defined(NK_AVX512)
  if (sizeof(C) == 4 && kAvx512) return 2 * kBand;
#endif
  return kBand;
}

// Per column of (rows, n), rows stride apart: a += x - about, b += (x - about)^2. Asks for memory
// that many elements ahead, if any.
template <class T>
void add_columns_about(const T* x, int64_t stride, int64_t rows, int64_t ahead, const compute_t<T>* about,
                       compute_t<T>* a, compute_t<T>* b, int64_t n);

// The mean and m2 of n columns of so many rows, in double and from two reads.
template <class T>
void wide_columns(const T* x, int64_t rows, double* mean, double* m2, int64_t n);

// Moves about to the mean and clears the sums where, in any column, it lay too far off; whether it did.
template <class C>
bool recentre(int64_t rows, C* about, C* a, C* b, int64_t n);

// Chan's merge of such sums over rows into the moments of count rows; clears the sums, and about becomes the mean.
template <class C>
void merge_columns(int64_t count, int64_t rows, C* about, C* a, C* b, double* mean, double* m2, int64_t n);

// Per column: a += du, b += du * (x - mean); rows of x lie stride apart, those of du d_stride
template <class T, class D>
void add_gradient_columns(const D* du, int64_t d_stride, const T* x, int64_t stride, int64_t rows, int64_t ahead,
                          const compute_t<T>* mean, compute_t<T>* a, compute_t<T>* b, int64_t n);

// Streaming Normalization's L_p scale: |v|^p and its slope |v|^(p - 1) sign(v), v = x - mean. deviation_tiles.cpp.

// The sums over a run of one plane of |v|^p and of |v|^(p - 1) sign(v)
template <class T>
Pair<compute_t<T>> deviation_sums(const T* x, compute_t<T> mean, double p, int64_t n);

// The same added up for each column of a row of channels
template <class T>
void add_deviations(const T* x, const compute_t<T>* mean, double p, compute_t<T>* a, compute_t<T>* b, int64_t n);

// dx = a du + b |v|^(p - 1) sign(v) + c
template <class T, class K, class D>
void blend_deviations(const D* du, const T* x, const Blend<K>& k, double p, T* dx, int64_t n);

}  // namespace normkernels
