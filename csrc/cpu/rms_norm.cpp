// RMS norm over rows (Zhang & Sennrich 2019, arXiv:1910.07467): the CPU kernels.
#include "cpu/rows/norm.h"

namespace normkernels {
namespace {

void rms_norm_fwd(const Tensor& x, const OptionalTensor& residual, const OptionalTensor& weight,
                  const OptionalTensor& bias, const OptionalTensor& gate, const Tensor& y, const OptionalTensor& summed,
                  const Tensor& rstd, double eps, double weight_offset, const std::string& name, double slope) {
  rows_fwd("rms_norm_fwd", x, residual, {weight, bias, weight_offset, name, slope}, gate, y, summed, kAbsent, rstd,
           eps);
}

void rms_norm_bwd(const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x, const OptionalTensor& weight,
                  const OptionalTensor& bias, const OptionalTensor& gate, const Tensor& rstd, const Tensor& dx,
                  const OptionalTensor& dweight, const OptionalTensor& dbias, const OptionalTensor& dgate,
                  double weight_offset, const std::string& name, double slope) {
  rows_bwd("rms_norm_bwd", dy, dsummed, x, {weight, bias, weight_offset, name, slope}, gate, kAbsent, rstd, dx, dweight,
           dbias, dgate);
}

}  // namespace

NK_CPU(rms_norm_fwd, rms_norm_fwd)
NK_CPU(rms_norm_bwd, rms_norm_bwd)

}  // namespace normkernels
