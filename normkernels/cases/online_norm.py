"""Online Normalization: every guard, from first and from later states, few samples and many."""

from typing import Any

import torch
from torch import Tensor

from normkernels.cases import Sample
from normkernels.cases._channels import OPTIONAL, Norm, affine, last, skip_and_activate
from normkernels.functional import online_norm


class Controlled(torch.autograd.Function):
    """The paper's loop over samples, and its control process over their gradients; x: (N, C, S)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, var: Tensor, accumulators: tuple[Tensor, Tensor], alpha_fwd: float,
        alpha_bkw: float, eps: float, stable: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ys, rstds = [], []
        for sample in x:
            rstds.append(torch.rsqrt(var + eps))
            ys.append((sample - mean[:, None]) * rstds[-1][:, None])
            m, s = sample.mean(1), sample.var(1, correction=0)
            var = alpha_fwd * var + (1 - alpha_fwd) * s + alpha_fwd * (1 - alpha_fwd) * (m - mean) ** 2
            mean = alpha_fwd * mean + (1 - alpha_fwd) * m
        y = torch.stack(ys)
        ctx.save_for_backward(y, torch.stack(rstds))
        ctx.settings = accumulators, 1 - alpha_bkw, stable
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (epsilon_1, epsilon_y), p, stable = ctx.settings
        dxs, new_1, new_y = [], epsilon_1.to(dy.dtype), epsilon_y.to(dy.dtype)
        for g, y, rstd in zip(dy, *ctx.saved_tensors, strict=True):
            gain = torch.clamp(1 / y.square().mean(1), max=p) if stable else p
            h = g - (gain * new_y)[:, None] * y
            new_y = new_y + (h * y).mean(1)
            dxs.append(h * rstd[:, None] - (p * new_1)[:, None])
            new_1 = new_1 + dxs[-1].mean(1)
        epsilon_1.copy_(new_1)
        epsilon_y.copy_(new_y)
        return torch.stack(dxs), None, None, None, None, None, None, None


def guarded(z: Tensor, guard: str | None = "layer_scaling", ls_eps: float = 1e-5, clamp: float = 5.0) -> Tensor:
    """z (N, C, S) behind its guard."""
    if guard == "layer_scaling":
        return z * torch.rsqrt(z.square().mean((1, 2), keepdim=True) + ls_eps)
    return z if guard is None else z.clamp(-clamp, clamp)


def online_norm_torch(
    input: Tensor, running_mean: Tensor, running_var: Tensor, epsilon_1: Tensor | None = None,
    epsilon_y: Tensor | None = None, training: bool = False, alpha_fwd: float = 0.999, alpha_bkw: float = 0.99,
    eps: float = 1e-5, stable: bool = False, weight: Tensor | None = None, bias: Tensor | None = None, **after: Any,
) -> Tensor:  # fmt: skip
    """One sample after the other."""
    wide = torch.promote_types(input.dtype, torch.float32)
    x, mean, var = input.reshape(*input.shape[:2], -1).to(wide), running_mean.to(wide), running_var.to(wide)
    if training and x.numel():
        z, *new = Controlled.apply(x, mean, var, (epsilon_1, epsilon_y), alpha_fwd, alpha_bkw, eps, stable)
        with torch.no_grad():
            running_mean.copy_(new[0])
            running_var.copy_(new[1])
    else:
        z = (x - mean[:, None]) / torch.sqrt(var + eps)[:, None]
    guard = {name: after.pop(name) for name in ("guard", "ls_eps", "clamp") if name in after}
    z = guarded(affine(z, weight, bias), **guard)
    return skip_and_activate(z.view(input.shape).to(input.dtype), **after)


def _state(mean: Tensor, var: Tensor, draw) -> dict[str, Tensor]:
    C = len(mean)
    return {
        "running_mean": mean + var.sqrt() * draw(C) / 2,
        "running_var": var * torch.exp(draw(C) / 4),
        "epsilon_1": draw(C),
        "epsilon_y": draw(C),
    }


NORM = Norm(
    "online_norm",
    statistics=lambda rank: (0, *range(2, rank)),
    arguments=lambda channels: {"training": True, "alpha_fwd": 0.9, "alpha_bkw": 0.95},
    state=_state,
)


def _samples() -> list[Sample]:
    sample, x = NORM.sample, NORM.x
    image, rows = x(4, 20, 5, 7), x(37, 33)
    guards = {"clamp": {"guard": "clamp", "clamp": 1.0}, "unguarded": {"guard": None}}
    return [
        *NORM.samples(),
        sample("37x33", rows, OPTIONAL, activation="relu"),
        sample("37x33-plain", rows, ()),
        sample("300x5", x(300, 5)),
        sample("131x3x2", x(131, 3, 2), OPTIONAL, activation="silu"),
        sample("70x4x3x2-channels_last", last(x(70, 4, 3, 2))),
        sample("7x33x1x1", x(7, 33, 1, 1)),
        sample("1x33", x(1, 33)),
        *(sample(f"4x20x5x7-{k}", image, OPTIONAL, activation="gelu", **v) for k, v in guards.items()),
        *(sample(f"4x20x5x7-{k}-plain", image, (), **v) for k, v in guards.items()),
        *(sample(f"channels_last-{k}", last(image), **v) for k, v in guards.items()),
        *(sample(f"37x33-{k}", rows, **v) for k, v in guards.items()),
        sample("4x20x5x7-ls_eps", image, ls_eps=0.5),
        sample("37x33-defaults", rows, alpha_fwd=0.999, alpha_bkw=0.99),
        sample("37x33-stable", rows, alpha_bkw=0.1, stable=True),
        sample("4x20x5x7-stable", image, OPTIONAL, alpha_bkw=0.1, stable=True, activation="tanh"),
        sample("4x20x5x7-frozen", image, alpha_fwd=1.0),
        sample("4x20x5x7-uncontrolled", image, alpha_bkw=1.0),
        sample("4x20x5x7-forgetful", image, alpha_fwd=0.0),
        sample("4x20x5x7-eval", image, OPTIONAL, activation="relu", training=False),
        sample("channels_last-eval", last(image), OPTIONAL, activation="silu", training=False),
        *(sample(f"plain-{k}-eval", image, (), training=False, **v) for k, v in guards.items()),
        sample("5x33-eval", x(5, 33), training=False),
        sample("1x33-eval", x(1, 33), ("skip", "bias"), training=False),
    ]


OP = NORM.op(online_norm, online_norm_torch, _samples(), ("running_mean", "running_var", "epsilon_1", "epsilon_y"))
