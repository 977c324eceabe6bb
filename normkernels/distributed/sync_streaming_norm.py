"""SyncStreamingNorm: one mini-batch over several processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.types import Device

from normkernels import _checks
from normkernels._activations import Activation
from normkernels._arguments import constructor
from normkernels._backends import requested
from normkernels._backends.reference.streaming_norm import streamed
from normkernels.distributed._spanning import Spanning
from normkernels.distributed.streaming_norm import SpanningStreamingNorm, anywhere, statistics
from normkernels.modules.streaming_norm import _StreamingNorm
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._state import advance
from normkernels.ops._streaming_norm_recipe import Settings, taken_in


class SyncStreamingNorm(Spanning, _StreamingNorm):
    """Streaming normalisation with the statistics of all processes, and with the gradients of these.

    N processes give what one gives on all samples together, and have one state, the same bits everywhere. Each may have
    a number of samples of its own, or none. One small exchange forward (two where p is not 2, and by torch's ops) and
    one backward; nothing waits for the host. Outside of training, and in one process, it is StreamingNorm2d for any
    number of dimensions. Gradients of weight and bias are those of this process's samples: DistributedDataParallel
    adds them up.

    Args:
        num_features, eps, affine, device, dtype: as in StreamingNorm2d.
        process_group: of torch.distributed; None is the default group.
        p, alpha, beta, kappa, bias, activation, slope, backend: as in StreamingNorm2d.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: as in StreamingNorm2d.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> nk.SyncStreamingNorm(8, activation="relu")(torch.randn(4, 8, 5, 5)).shape
        torch.Size([4, 8, 5, 5])

    Source: Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160, section 3, over the mini-batches of all processes.
    """

    NUMBERS = ("eps", "p", "alpha", "beta", "kappa")

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, process_group: Any = None, p: float = 2.0,
        alpha: Sequence[float] = (0.7, 0.3), beta: Sequence[float] = (0.7, 0.0, 0.3),
        kappa: Sequence[float] = (0.7, 0.3, 0.7, 0.3), bias: bool = True, activation: Activation | None = None,
        slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        numbers: dict[str, Any] = {"p": p, "alpha": alpha, "beta": beta, "kappa": kappa}
        extras: dict[str, Any] = {"bias": bias, "activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, affine, device, dtype, **numbers, **extras)
        self.process_group = process_group

    def _spanning(self, x: Tensor, added: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        activation = _checks.check_activation("SyncStreamingNorm", self.activation)
        backend, dtype = requested(self.backend, "streaming_norm", x), statistic_dtype(x)
        settings = Settings(self.alpha, self.beta, float(self.p), self.eps, activation, self.slope, backend)  # type: ignore[reportArgumentType]
        memory = [self.long_term[2:], self.short_term[2:], self.counts[1]]

        def run(state):
            met = [t.to(dtype) for t in state]
            found, deviations, count = statistics(x, settings, self.process_group)
            used, new = streamed(found, *met, weights=(*self.alpha, 0.0))
            y = SpanningStreamingNorm.apply(
                x, added, weight, bias, found, used, deviations, count, memory, settings, self.process_group
            )
            return y, [met[0], *anywhere(count, met, taken_in(met, new, met[2]))]

        return advance(self.long_term, [self.long_term[:2], self.short_term[:2], self.counts[0]], run)
