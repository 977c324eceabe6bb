"""SyncOnlineNorm: the samples of several processes, one process's after the other's."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.types import Device

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._arguments import constructor
from normkernels._backends import requested
from normkernels.distributed._spanning import Spanning
from normkernels.distributed.online_norm import SpanningOnlineNorm, element, joined
from normkernels.distributed.statistics import gathered, rank
from normkernels.modules.online_norm import _OnlineNorm
from normkernels.ops import _channels
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._online_norm_recipe import Settings
from normkernels.ops._state import advance
from normkernels.ops.online_norm import rates_of


class SyncOnlineNorm(Spanning, _OnlineNorm):
    """Online normalisation with one state for all processes, in the order of their ranks.

    N processes give what one gives that sees the samples of the first, then those of the second, and so on: outputs,
    gradients, statistics and accumulators, which are the same bits everywhere. Each process may have a number of
    samples of its own, or none. One small exchange forward (with ``bias_correction`` also one of the numbers of
    samples) and one backward; nothing waits for the host. What is exchanged has to be known before y and dx are: an
    input is read once more forward than by OnlineNorm2d, and backward runs twice. Outside of training, and in one
    process, it is OnlineNorm2d for any number of dimensions. Gradients of weight and bias are those of this process's
    samples: DistributedDataParallel adds them up.

    Args:
        num_features, alpha_fwd, alpha_bkw, eps, affine, device, dtype: as in OnlineNorm2d.
        process_group: of torch.distributed; None is the default group.
        guard, ls_eps, clamp, stable, bias_correction, bias, activation, slope, backend: as in OnlineNorm2d.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: as in OnlineNorm2d.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> nk.SyncOnlineNorm(8, activation="relu")(torch.randn(1, 8, 5, 5)).shape
        torch.Size([1, 8, 5, 5])

    Source: Chiley et al. 2019, arXiv:1905.05894, equations 8 to 12; joining runs of samples is ours.
    """

    NUMBERS = ("alpha_fwd", "alpha_bkw", "eps", "guard", "ls_eps", "clamp", "stable", "bias_correction")

    @constructor
    def __init__(
        self, num_features: int, alpha_fwd: float = 0.999, alpha_bkw: float = 0.99, eps: float = 1e-5,
        affine: bool = True, device: Device = None, dtype: torch.dtype | None = None, *, process_group: Any = None,
        guard: str | None = "layer_scaling", ls_eps: float = 1e-5, clamp: float = 5.0, stable: bool = False,
        bias_correction: bool = False, bias: bool = True, activation: Activation | None = None, slope: float = 0.01,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        numbers: dict[str, Any] = {"guard": guard, "ls_eps": ls_eps, "clamp": clamp, "stable": stable}
        extras: dict[str, Any] = {"bias": bias, "activation": activation, "slope": slope, "backend": backend}
        extras |= {"bias_correction": bias_correction}
        super().__init__(num_features, alpha_fwd, alpha_bkw, eps, affine, device, dtype, **numbers, **extras)
        self.process_group = process_group

    def _spanning(self, x: Tensor, added: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        _channels.check_running("SyncOnlineNorm", x, self.running_mean, self.running_var, True, weight)
        settings, dtype, group = self._settings(x), statistic_dtype(x), self.process_group
        tracked: list[Any] = [self.num_samples_tracked] if self.bias_correction else []
        state = [self.running_mean, self.running_var, *tracked]

        def run(state):
            before, after = [], []  # the samples that were seen, where they count
            for seen in state[2:]:
                numbers = gathered(torch.full((1,), len(x), device=x.device), group)
                before, after = [seen + numbers[: rank(group)].sum()], [seen + numbers.sum()]
            rates = rates_of(x, self.alpha_fwd, *before)
            with torch.no_grad():
                elements = gathered(element(x, rates, dtype, settings.backend), group)
                start = [t.to(dtype) for t in joined(state[:2], elements[: rank(group)])]
            y = SpanningOnlineNorm.apply(
                x, added, weight, bias, *start, rates, self.epsilon_y, self.epsilon_1, settings, group
            )
            return y, [*joined(state[:2], elements), *after]

        return advance(self.running_mean, state, run)

    def _settings(self, x: Tensor) -> Settings:
        bound = self.clamp if self.guard == "clamp" else math.inf
        scaling, activation = self.guard == "layer_scaling", _checks.check_activation("SyncOnlineNorm", self.activation)
        backend = requested(self.backend, "online_norm", x)
        return Settings(
            self.alpha_bkw, self.stable, self.eps, scaling, self.ls_eps, bound, activation, self.slope, backend
        )  # fmt: skip
