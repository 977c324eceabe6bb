// A failed check prints where and what, and fails the test.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

inline std::atomic<int> failures = 0;

#define CHECK(condition, ...)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      ++failures;                                                          \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fputc('\n', stderr);                                            \
    }                                                                      \
  } while (0)

// |got - want| <= relative * |want| + absolute
inline void check_close(const std::string& what, long i, double got, long double want, double relative,
                        double absolute) {
  const double off = std::fabs(static_cast<double>(got - want));
  const double allowed = relative * std::fabs(static_cast<double>(want)) + absolute;
  CHECK(off <= allowed, "%s[%ld] is %.9g, not %.9Lg (allowed %.3g)", what.c_str(), i, got, want, allowed);
}

inline std::vector<double> normal(size_t count, unsigned seed, double mean = 0, double deviation = 1) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<double> values(count);
  for (double& v : values) v = distribution(engine);
  return values;
}

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures ? "FAILED" : "ok");
  return failures ? 1 : 0;
}
