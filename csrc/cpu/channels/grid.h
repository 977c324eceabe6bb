// What the channel family normalises, as numbers, and other ways to see the same memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace normkernels {

// N images of C channels of S positions; statistics (B, G): each pools N / B images and C / G adjacent channels.
struct Grid {
  int64_t N, C, S, B, G;

  int64_t images() const { return N / B; }
  int64_t channels() const { return C / G; }
  int64_t plane(int64_t n, int64_t c) const { return (n * C + c) * S; }
  double count() const { return static_cast<double>(images() * channels() * S); }
};

// Planes of a batch too small for loops of their own: those of an image are one line, and the batch is one image.
inline int64_t tiny_planes(const Grid& g, bool last) {
  return !last && g.B == 1 && g.N > 1 && g.G == g.C && g.S <= 64 && g.C * g.S <= 1 << 15 ? g.S : 0;
}
inline Grid one_image(const Grid& g) { return {1, g.C, g.N * g.S, 1, g.C}; }

// One position lies either way, and images of their own go faster as rows.
inline bool lies_last(const Grid& g, bool last) { return last || (g.S == 1 && g.B == g.N); }

// Small images with statistics of their own, one after another, are also fewer images with more channels: what an image
// costs beside its elements is paid once for so many of them.
inline int64_t images_at_once(const Grid& g, bool last) {
  constexpr int64_t kTogether = 1 << 12;  // elements
  if (g.B != g.N || (last && g.S > 1)) return 1;
  int64_t images = std::clamp<int64_t>(kTogether / std::max<int64_t>(g.C * g.S, 1), 1, std::max<int64_t>(g.N, 1));
  while (g.N % images) images--;
  return images;
}
inline Grid wider(const Grid& g, int64_t images) {
  return {g.N / images, g.C * images, g.S, g.B / images, g.G * images};
}

}  // namespace normkernels
