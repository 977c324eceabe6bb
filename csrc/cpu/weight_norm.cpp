// Weight norm (Salimans & Kingma 2016, arXiv:1602.07868) and projection to length 1: the CPU kernels.
#include "checks/filters.h"
#include "cpu/filters/norm.h"

namespace normkernels {
namespace {

// f(T(), D()) for v in T and w in D: the same, or 16 bits beside float
template <class F>
void dispatch_weights(const Tensor& v, const Tensor& w, const char* op, const F& f) {
  dispatch(w, op, [&](auto element) {
    if constexpr (sizeof(element) == 2)
      if (v.scalar_type() == ScalarType::Float) return f(float(), element);
    f(element, element);
  });
}

void weight_norm_fwd(const Tensor& v, const Tensor& g, const Tensor& w, const Tensor& norm) {
  if (!check::weight_norm_fwd(v, g, w, norm)) return;
  dispatch_weights(v, w, "weight_norm_fwd",
                   [&]<class T, class D>(T, D) { filters_fwd<T, D>(v, g, w, kAbsent, norm, 0); });
}

void weight_norm_bwd(const Tensor& dw, const Tensor& v, const Tensor& g, const Tensor& norm, const Tensor& dv,
                     const OptionalTensor& dg) {
  if (!check::weight_norm_bwd(dw, v, g, norm, dv, dg)) return;
  dispatch_weights(v, dw, "weight_norm_bwd",
                   [&]<class T, class D>(T, D) { filters_bwd<T, D>(dw, v, g, kAbsent, norm, dv, dg); });
}

// The filters of all weights are shared among the threads at once, in parts of much the same size.
void weight_norm_project(const std::vector<Tensor>& given) {
  const std::vector<Tensor> weights = check::weight_norm_project(given);
  if (weights.empty()) return;
  dispatch(weights[0], "weight_norm_project", [&](auto element) {
    using T = decltype(element);
    struct Part {
      FiltersForward<T, T> sweep;
      int64_t begin, end;
    };
    Scratch<Part> parts;
    int64_t elements = 0;
    for (const Tensor& w : weights) {
      const int64_t M = w.size(0), N = w.size(1), rows = grain(N);
      const FiltersForward<T, T> sweep{.M = M, .N = N, .x = pointer<T>(w), .y = pointer<T>(w)};
      for (int64_t m = 0; m < M; m += rows) parts.push_back({sweep, m, std::min(M, m + rows)});
      elements += M * N;
    }
    const int64_t count = parts.size();
    parallel_for(0, count, grain(elements / std::max<int64_t>(count, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) sweep_filters(parts[i].sweep, parts[i].begin, parts[i].end);
    });
  });
}

}  // namespace

NK_CPU(weight_norm_fwd, weight_norm_fwd)
NK_CPU(weight_norm_bwd, weight_norm_bwd)
NK_CPU(weight_norm_project, weight_norm_project)

}  // namespace normkernels

// Python calls it past its own ops, so that schemas.cpp does not know it.
STABLE_TORCH_LIBRARY_FRAGMENT(normkernels_C, m) { m.def("weight_norm_project(Tensor(a!)[] weights) -> ()"); }
