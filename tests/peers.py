"""Norms as other libraries write them, with their names, attributes and order of casts."""

import torch
from torch import Tensor, nn


class LlamaRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(x.dtype)


class GemmaRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps) * (1.0 + self.weight)).type_as(x)


class BiasedRMSNorm(LlamaRMSNorm):
    """As diffusers' with a bias."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias


class NarrowRMSNorm(LlamaRMSNorm):
    """As T5's and diffusers': rounded to the weight's dtype where that has 16 bits, whatever input's."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (y.to(self.weight.dtype) if self.weight.dtype in (torch.float16, torch.bfloat16) else y)


class OtherRMSNorm(LlamaRMSNorm):
    """eps outside of the root: none of ours."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-2)


class GatedRMSNorm(LlamaRMSNorm):
    """As transformers' of Mamba-2: the gate comes first, and may be left out."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return super().forward(x if gate is None else x * nn.functional.silu(gate))


class NormThenGate(LlamaRMSNorm):
    """As transformers' of Qwen3-Next: it needs the gate."""

    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:
        y = super().forward(hidden_states) * nn.functional.silu(gate.to(torch.float32))
        return y.to(hidden_states.dtype)


class LayerNormThenGate(nn.LayerNorm):
    """As Mamba-2's own with ``norm_before_gate=True``: the gate is called z, and may be left out."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        w, b = self.weight.float(), self.bias.float()
        y = nn.functional.layer_norm(x.float(), self.normalized_shape, w, b, self.eps)
        return (y if z is None else y * nn.functional.silu(z.float())).to(x.dtype)


class RMSNormFusedGate(GemmaRMSNorm):
    """As flash-linear-attention's: a residual, and whether the sum is returned, may be given too."""

    activation = "sigmoid"

    def forward(self, x: Tensor, g: Tensor, residual: Tensor | None = None, prenorm: bool = False):
        s = x if residual is None else x + residual
        y = (super().forward(s.float()) * torch.sigmoid(g.float())).to(x.dtype)
        return (y, s) if prenorm else y


class GroupedRMSNormGate(NormThenGate):
    """Each half of a row by itself, as with two groups of heads."""

    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        halves = hidden_states.unflatten(-1, (2, -1))
        y = halves * torch.rsqrt(halves.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * y.flatten(-2) * (1 if gate is None else nn.functional.silu(gate))


class RMSNormElsewhere(NormThenGate):
    """As one whose kernel is not for this device."""

    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:
        raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")


class FP32LayerNorm(nn.LayerNorm):
    """As diffusers': in float32 whatever the dtypes, and back to input's."""

    def forward(self, x: Tensor) -> Tensor:
        w, b = (None if t is None else t.float() for t in (self.weight, self.bias))
        return nn.functional.layer_norm(x.float(), self.normalized_shape, w, b, self.eps).to(x.dtype)


class PermutedLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelsFirstLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        z = x - x.mean(1, keepdim=True)
        z = z / (z.pow(2).mean(1, keepdim=True) + self.eps).sqrt()
        return self.weight[:, None, None] * z + self.bias[:, None, None]


class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class GroupNormAct(nn.GroupNorm):
    act = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class FrozenBatchNorm2d(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.eps = 1e-5
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w, b, m, v = (t[:, None, None] for t in (self.weight, self.bias, self.running_mean, self.running_var))
        return (x - m) * w * (v + self.eps).rsqrt() + b


class FrozenNormByNumber(FrozenBatchNorm2d):
    """As transformers' of DETR: eps is a number in its forward."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        del self.eps

    def forward(self, x: Tensor) -> Tensor:
        w, b, m, v = (t[:, None, None] for t in (self.weight, self.bias, self.running_mean, self.running_var))
        return (x - m) * w * (v + 1e-5).rsqrt() + b


class RMSNormAfterSum(GemmaRMSNorm):
    """As flash-linear-attention's: output in input's dtype, the sum in residual's."""

    def normed(self, s: Tensor) -> Tensor:
        return s * torch.rsqrt(s.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight.float()

    def forward(self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False, residual_in_fp32: bool = False):
        s = x.float() if residual is None else x.float() + residual.float()
        y = self.normed(s).to(x.dtype)
        wide = torch.float32 if residual_in_fp32 else x.dtype
        return (y, s.to(wide if residual is None else residual.dtype)) if prenorm else y


class LayerNormAfterSum(RMSNormAfterSum):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bias = nn.Parameter(torch.zeros(size))

    def normed(self, s: Tensor) -> Tensor:
        w, b = self.weight.float(), self.bias.float()
        return nn.functional.layer_norm(s, self.weight.shape, w, b, self.eps)


class RMSNormOfInput(RMSNormAfterSum):
    """Returns the input, not the sum."""

    def forward(self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False):
        y = super().forward(x, residual)
        return (y, x) if prenorm else y


class RMSNormWidens(RMSNormAfterSum):
    """Output in the wider dtype of input and residual."""

    def forward(self, x: Tensor, residual: Tensor | None = None, prenorm: bool = False):
        y, s = super().forward(x if residual is None else x.to(residual.dtype), residual, True)
        return (y, s) if prenorm else y


class OpenGate(LayerNormThenGate):
    """A gate that no activation is applied to, and that may be left out."""

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        y = nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return y if z is None else y * z
