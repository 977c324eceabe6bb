#pragma once

#include "cuda_bf16.h"

// Half goes the way of bfloat16 in the kernels; only its names are needed here.
struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};
inline float __half2float(__half v) { return __bfloat162float({v.bits}); }
inline __half __float2half_rn(float v) { return {__float2bfloat16_rn(v).bits}; }
inline float __low2float(__half2 v) { return __half2float(v.x); }
inline float __high2float(__half2 v) { return __half2float(v.y); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
