// Layer norm over rows (Ba, Kiros & Hinton 2016, arXiv:1607.06450): the CPU kernels.
#include "cpu/rows/norm.h"

namespace normkernels {
namespace {

void layer_norm_fwd(const Tensor& x, const OptionalTensor& residual, const OptionalTensor& weight,
                    const OptionalTensor& bias, const OptionalTensor& gate, const Tensor& y,
                    const OptionalTensor& summed, const Tensor& mean, const Tensor& rstd, double eps,
                    double weight_offset, const std::string& name, double slope) {
  rows_fwd("layer_norm_fwd", x, residual, {weight, bias, weight_offset, name, slope}, gate, y, summed, mean, rstd, eps);
}

void layer_norm_bwd(const Tensor& dy, const OptionalTensor& dsummed, const Tensor& x, const OptionalTensor& weight,
                    const OptionalTensor& bias, const OptionalTensor& gate, const Tensor& mean, const Tensor& rstd,
                    const Tensor& dx, const OptionalTensor& dweight, const OptionalTensor& dbias,
                    const OptionalTensor& dgate, double weight_offset, const std::string& name, double slope) {
  rows_bwd("layer_norm_bwd", dy, dsummed, x, {weight, bias, weight_offset, name, slope}, gate, mean, rstd, dx, dweight,
           dbias, dgate);
}

}  // namespace

NK_CPU(layer_norm_fwd, layer_norm_fwd)
NK_CPU(layer_norm_bwd, layer_norm_bwd)

}  // namespace normkernels
