// What a CPU kernel works in: blocks that begin with a cache line, and come back to whoever asks next.
#include "check.h"
#include "cpu/base/work.h"

using namespace normkernels;

int main() {
  for (size_t n : {size_t{1}, size_t{5}, size_t{64}, size_t{1000}, size_t{1} << 16, size_t{1} << 20}) {
    const Scratch<float> values(n);
    const Room<double> room(n);
    CHECK(on_line(values.data()) && on_line(room.get()), "%zu", n);
    CHECK(room.at(static_cast<int64_t>(n) - 1) == room.get() + n - 1, "%zu", n);
  }
  CHECK(Room<float>(0).at(3) == nullptr, "no room");
  const void* const first = Room<float>(100).get();
  CHECK(Room<float>(100).get() == first, "a block comes back");
  return report("room");
}
