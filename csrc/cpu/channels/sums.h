// Sums over tiles of channels: over a run of one plane, or down the columns of rows of channels.
#pragma once

#include "cpu/base/tiles.h"

namespace normkernels {

// Moments from one read: sums about a value near the mean, taken again about the mean if that was too far off.
template <class T>
Moments moments_about(const T* x, compute_t<T> about, int64_t n, double eps);

// The sums of du and du * (x - mean)
template <class T, class D>
Pair<compute_t<T>> sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n);

// The same of so many adjacent planes of n positions, each about its own mean
template <class T>
void sums_of_planes(const T* du, const T* x, const compute_t<T>* mean, int64_t planes, int64_t n,
                    Pair<compute_t<T>>* sums);

constexpr int64_t kBand = 64;  // columns whose sums stay in registers, if there are just as many

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

}  // namespace normkernels
