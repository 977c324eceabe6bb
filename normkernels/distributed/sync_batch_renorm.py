"""SyncBatchRenorm: one batch over several processes."""

from typing import Any

import torch
from torch import Tensor
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor
from normkernels._backends import requested
from normkernels._backends.reference.batch_renorm import corrected, correction
from normkernels.distributed._spanning import Spanning
from normkernels.distributed.batch_norm import spanning
from normkernels.distributed.statistics import moments
from normkernels.modules.batch_renorm import _BatchRenorm
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._state import advance, sound


class SyncBatchRenorm(Spanning, _BatchRenorm):
    """Batch renormalisation with the statistics of all processes.

    As SyncBatchNorm; the running statistics are the same bits everywhere.

    Args:
        num_features, eps, momentum, affine, device, dtype: as in BatchRenorm2d.
        process_group: of torch.distributed; None is the default group.
        r_max, d_max, warmup_steps, r_ramp_steps, d_ramp_steps: as in BatchRenorm2d.
        bias, activation, slope, backend: as in BatchRenorm2d.

    Shape:
        input and skip ``(N, C, *)``; output the same, in input's memory layout.

    Attributes: as in BatchRenorm2d.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> nk.SyncBatchRenorm(8, activation="relu")(torch.randn(4, 8, 5, 5)).shape
        torch.Size([4, 8, 5, 5])

    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1, over the batches of all processes.
    """

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.01, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, process_group: Any = None, r_max: float = 3.0, d_max: float = 5.0,
        warmup_steps: int = 5000, r_ramp_steps: int = 35000, d_ramp_steps: int = 20000, bias: bool = True,
        activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        ramp: dict[str, Any] = {"r_max": r_max, "d_max": d_max, "warmup_steps": warmup_steps}
        ramp |= {"r_ramp_steps": r_ramp_steps, "d_ramp_steps": d_ramp_steps}
        extras: dict[str, Any] = {"bias": bias, "activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, momentum, affine, device, dtype, **ramp, **extras)
        self.process_group = process_group

    def _spanning(self, x: Tensor, added: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        dtype = statistic_dtype(x)

        def run(state):
            before = [t.to(dtype) for t in state[:2]]
            with torch.no_grad():
                found = moments(x, self.process_group, requested(self.backend, "batch_norm", x))
                batch = found.mean, (found.var + self.eps).sqrt()
                r_max, d_max = self._ramp().bounds(before[0], state[2])
                r, d = correction(found.mean[None], found.var[None], before[0], before[1], r_max, d_max, self.eps)
                moved = [torch.lerp(a, b, self.momentum) for a, b in zip(before, batch, strict=True)]
                moved = [torch.where(found.count > 0, new, old) for new, old in zip(moved, before, strict=True)]
            scale, shift = corrected(weight, bias, r, d)
            _, y = spanning(x, added, scale, shift, self.eps, self.extras, self.process_group, found)
            return y, [*sound(moved, before, batch), state[2] + 1]

        return advance(self.running_mean, [self.running_mean, self.running_std, self.num_batches_tracked], run)
