// How work is cut into tiles and segments and shared among threads, and the room that it needs for a moment. Who
// computes what depends on it, never a result.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "cpu/base/tiles.h"

namespace normkernels {

// How often work was shared among threads since the library was loaded: what users with many of them wait for.
inline std::atomic<int64_t> parallel_regions{0};

template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  if (end - begin > grain && torch::stable::get_num_threads() > 1) parallel_regions++;
  torch::stable::parallel_for(begin, end, grain, f);
}

constexpr int64_t kStep = 512;            // the part of a tile between two requests for memory that will be read next
constexpr int64_t kSegment = 32 * kTile;  // the part of a long row that one thread takes

// Work in one cache is cut into so many parts, if they are worth a thread each: by its shape alone, that no number of
// threads changes a bit.
constexpr int64_t kPart = 1 << 15, kParts = 8;

inline int64_t segments(int64_t N) { return (N + kSegment - 1) / kSegment; }

// Results that will have left the caches before anybody reads them are written past the caches: of a sweep over so
// many tensors.
template <class T>
bool large(int64_t elements, int64_t tensors = 2) {
  return elements * tensors * static_cast<int64_t>(sizeof(T)) >= (int64_t{32} << 20);
}

// Rows of that many bytes that are taken together: as many as fit in a quarter of a megabyte, kGroup at most; a row of
// one tile stays alone.
constexpr int64_t kGroup = 8;
inline int64_t group_rows(int64_t bytes) {
  return bytes <= 4 * kTile ? 1 : std::clamp<int64_t>((int64_t{1} << 18) / bytes, 1, kGroup);
}

// Fewer rows than threads, and long ones: share each row among the threads.
inline bool split_rows(int64_t M, int64_t N) { return N > kSegment && M < torch::stable::get_num_threads(); }

// Rows that are worth a thread of their own.
inline int64_t grain(int64_t N) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(N, 1)); }

template <class F>
void for_each(int64_t n, const F& f) {
  parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) f(i);
  });
}

// f(segment, begin, end) for every segment of a row
template <class F>
void for_each_segment(int64_t N, const F& f) {
  for_each(segments(N), [&](int64_t s) { f(s, s * kSegment, std::min(N, (s + 1) * kSegment)); });
}

// f(first, count) for every part of a range, of so many at most
template <class F>
void for_each_part(int64_t begin, int64_t end, int64_t most, const F& f) {
  for (int64_t j = begin; j < end; j += most) f(j, std::min(most, end - j));
}
template <class F>
void for_each_tile(int64_t begin, int64_t end, const F& f) {
  for_each_part(begin, end, kTile, f);
}
template <class F>
void for_each_step(int64_t begin, int64_t end, const F& f) {
  for_each_part(begin, end, kStep, f);
}

// The blocks that this thread gave back, by their sizes (powers of two), for whoever asks next: a small call spends
// more on asking for room than on its arithmetic. They begin with a cache line, for a vector that lies in two takes
// twice as long.
class Blocks {
 public:
  static Blocks& mine() {
    thread_local Blocks blocks;
    return blocks;
  }
  void* take(size_t bytes) {
    const int size = class_of(bytes);
    if (size >= kClasses) return fresh(bytes);
    auto& free = free_[size];
    return free.count ? free.blocks[--free.count] : fresh(size_t{1} << size);
  }
  void give(void* block, size_t bytes) {
    const int size = class_of(bytes);
    if (size >= kClasses || free_[size].count == kKept) return drop(block);
    free_[size].blocks[free_[size].count++] = block;
  }
  Blocks(const Blocks&) = delete;
  ~Blocks() {
    for (auto& free : free_)
      while (free.count) drop(free.blocks[--free.count]);
  }

 private:
  static constexpr int kClasses = 19, kKept = 8;  // up to 256 KiB each
  static constexpr size_t kLine = 64;
  struct Free {
    std::array<void*, kKept> blocks;
    int count = 0;
  };
  Blocks() = default;
  // Before a block lies where it was allocated: glibc before 2.38 loses what was allocated aligned.
  static void* fresh(size_t bytes) {
    void* const whole = ::operator new(bytes + kLine);
    void** const block = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(whole) / kLine + 1) * kLine);
    block[-1] = whole;
    return block;
  }
  static void drop(void* block) { ::operator delete(static_cast<void**>(block)[-1]); }
  static int class_of(size_t bytes) { return std::bit_width(bytes < 64 ? size_t{63} : bytes - 1); }

  std::array<Free, kClasses> free_;
};

template <class T>
struct Recycled {
  using value_type = T;
  Recycled() = default;
  template <class U>
  Recycled(const Recycled<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(Blocks::mine().take(n * sizeof(T))); }
  void deallocate(T* block, size_t n) { Blocks::mine().give(block, n * sizeof(T)); }
  friend bool operator==(const Recycled&, const Recycled&) { return true; }
};

template <class T>
using Scratch = std::vector<T, Recycled<T>>;

// The same for numbers that are all written before any is read: no zeros come first.
template <class T>
struct Unset : Recycled<T> {
  template <class U>
  struct rebind {
    using other = Unset<U>;
  };
  template <class U>
  void construct(U* number) {
    ::new (number) U;
  }
};
template <class T>
using Raw = std::vector<T, Unset<T>>;

// Room for so many numbers, which are not yet anything.
template <class T>
class Room {
 public:
  explicit Room(size_t n) : n_(n), numbers_(n ? Recycled<T>().allocate(n) : nullptr) {}
  Room(const Room&) = delete;
  ~Room() {
    if (n_) Recycled<T>().deallocate(numbers_, n_);
  }
  T* get() const { return numbers_; }
  T* at(int64_t i) const { return numbers_ ? numbers_ + i : nullptr; }

 private:
  size_t n_;
  T* numbers_;
};

}  // namespace normkernels
