// For one file of each binary. glibc has said since 2.32 whether a process has one thread, and libstdc++ asks it before
// it counts owners of a shared pointer. This answer, no, is always safe: counts are atomic. Without it a binary would
// need a glibc as young as the one it was built on.
#pragma once

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
#endif
