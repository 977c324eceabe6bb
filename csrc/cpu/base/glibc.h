// A binary asks glibc for nothing later than 2.28, whichever Linux it is built on, so that one wheel serves every
// younger one (manylinux_2_28). exp and pow have had a second version since 2.29: the same values, without errno. The
// first is in every glibc of these architectures.
#pragma once

#include <cmath>

#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5\n\t.symver pow, pow@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver exp, exp@GLIBC_2.17\n\t.symver pow, pow@GLIBC_2.17");
#endif
