"""DataNorm: inputs with mean 0 and variance 1, element by element."""

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any, Never, Self

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._arguments import constructor, refuse
from normkernels._backends import check_name
from normkernels._checks import fail
from normkernels.modules._leaf import leaf
from normkernels.modules._wide_state import WideState
from normkernels.ops._state import count, sound, write
from normkernels.ops.batch_norm import batch_norm

MODES = ("global", "batch", "running")
CONSTANT = 1e-10  # an element whose deviation is that small a part of its mean is a constant


class DataNorm(WideState):
    r"""Standardises every element of a sample: what a NormProp net wants of its input.

    .. math::
        y = (x - \mu) / \sigma, \quad \sigma = 1 \text{ for an element that is constant}

    * ``"global"``: statistics of a whole data set, found once by :meth:`fit`, used in training and evaluation.
    * ``"batch"``: those of each mini-batch in training (eps added to its variance), running averages in ``eval()``, as
      batch norm; a batch of one is refused in training.
    * ``"running"``: those of everything seen so far, this batch included, in training too: any batch size. An element
      whose statistics in a batch are not finite keeps those that it had.

    Args:
        shape: sizes of a sample, an int or a tuple; statistics have it too.
        mode: as above.
        momentum: weight of a batch in the running averages. None: 0.1 with ``"batch"``; with ``"running"`` every sample
            seen weighs the same.
        eps: added to the variance of a batch (units of x²); ``"batch"`` only.
        device, dtype: of the statistics.
        backend: as in :func:`normkernels.functional.batch_norm`, whose kernels it runs on.

    Shape:
        input ``(N, *shape)``; output the same.

    Attributes: the buffers ``running_mean`` (0) and ``running_var`` (1), of ``shape``, both float32 even in a 16-bit
    model, and ``num_samples_tracked`` (0).

    Raises:
        ValueError: an argument or a shape is wrong.
        RuntimeError: ``"global"`` statistics are used before :meth:`fit`.

    Example:
        >>> layer = nk.DataNorm(3).fit(torch.randn(100, 3) * 5 + 2)
        >>> layer(torch.randn(4, 3)).shape
        torch.Size([4, 3])

    Source: Arpit et al. 2016, arXiv:1603.01431, section 4.1; ``"running"`` is ours.
    """

    running_mean: Tensor
    running_var: Tensor
    num_samples_tracked: Tensor

    shape: tuple[int, ...]
    mode: str
    momentum: float | None
    eps: float
    backend: str | None

    if TYPE_CHECKING:  # torch.nn.Module's says nothing of what it takes and returns

        def __call__(self, input: Tensor) -> Tensor: ...

    @constructor
    def __init__(
        self, shape: int | tuple[int, ...], mode: str = "global", *, momentum: float | None = None, eps: float = 1e-5,
        device: Device = None, dtype: torch.dtype | None = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if mode not in MODES:
            fail("DataNorm", "mode", f"be one of {', '.join(map(repr, MODES))}", repr(mode))
        if momentum is not None and not 0 < momentum <= 1:
            fail("DataNorm", "momentum", "be None or in (0, 1]", momentum)
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.mode, self.eps, self.backend = mode, eps, check_name(backend, "DataNorm")
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(self.shape, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(self.shape, device=device, dtype=dtype))
        self.register_buffer("num_samples_tracked", torch.tensor(0, dtype=torch.long, device=device))
        self._fitted = False

    @torch.no_grad()
    def fit(self, data: Tensor | Iterable[Any]) -> Self:
        """Mean and biased variance of a data set, in float64.

        Args:
            data: ``(N, *shape)``; or an iterable of such batches (a ``DataLoader``), or of tuples that start with one.
        """
        count, mean, squares = 0, torch.zeros(self.shape, dtype=torch.float64), torch.zeros(())
        for batch in [data] if isinstance(data, Tensor) else data:
            x = (batch[0] if isinstance(batch, tuple | list) else batch).detach()
            self._check(x)
            x = x.double()
            mean, squares = mean.to(x.device), squares.to(x.device)
            count += len(x)
            distance = x.mean(0) - mean  # Chan's rule merges both
            squares = (
                squares + (x - x.mean(0)).square().sum(0) + distance.square() * (len(x) * (count - len(x)) / count)
            )
            mean = mean + distance * (len(x) / count)
        if count == 0:
            fail("DataNorm.fit", "data", "have samples", "none")
        self.running_mean.copy_(mean)
        self.running_var.copy_(torch.where(_constant(mean, squares / count), 0, squares / count))
        self.num_samples_tracked.fill_(count)
        self._fitted = True
        return self

    def forward(self, input: Tensor, **unknown: Never) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input)
        if unknown:
            refuse(self, unknown)
        self._check(input)
        x = input.reshape(input.shape[0], prod(self.shape))
        mean, var = self.running_mean.view(-1), self.running_var.view(-1)
        if self.training and self.mode == "batch":
            if input.shape[0] == 1:
                rule = "have more than one sample in training where mode is 'batch' ('global' and 'running' take one)"
                fail("DataNorm", "input", rule, f"shape {tuple(input.shape)}")
            momentum = 0.1 if self.momentum is None else self.momentum
            y = batch_norm(x, mean, var, None, None, True, momentum, self.eps, backend=self.backend)
            count(self.num_samples_tracked, input.shape[0])
            return y.view(input.shape)
        if self.training and self.mode == "running":
            self._take_in(x.detach())
        if self.mode == "global" and not self._fitted:
            raise RuntimeError("DataNorm: mode 'global' needs its statistics: call fit(data) first")
        safe = torch.where(_constant(mean, var), 1, var)
        return batch_norm(x, mean, safe, None, None, False, 0.0, 0.0, backend=self.backend).view(input.shape)

    def _take_in(self, x: Tensor) -> None:
        """The running mean and variance of everything seen, or with momentum their moving averages (Chan's merge)."""
        if x.shape[0] == 0:
            return
        mean, var = self.running_mean.view(-1), self.running_var.view(-1)
        wide = x.to(torch.promote_types(x.dtype, mean.dtype))
        seen = self.num_samples_tracked
        share = x.shape[0] / (seen + x.shape[0]).to(mean.dtype)
        if self.momentum is not None:
            share = torch.where(seen == 0, 1.0, self.momentum).to(mean.dtype)
        distance, spread = wide.mean(0) - mean, wide.var(0, correction=0)
        new_var = var + share * (spread - var) + share * (1 - share) * distance.square()
        new = (mean + share * distance).to(mean.dtype), new_var.to(mean.dtype)
        for t, value in zip((mean, var), sound(new, (mean, var)), strict=True):
            write(t, value)
        count(seen, x.shape[0])

    def _check(self, input: Tensor) -> None:
        if not isinstance(input, Tensor) or tuple(input.shape[1:]) != self.shape or input.dim() != len(self.shape) + 1:
            shape = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            fail("DataNorm", "input", f"have shape (N, {', '.join(map(str, self.shape))})", shape)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._fitted = not self.num_samples_tracked.is_meta and bool(self.num_samples_tracked > 0)

    def extra_repr(self) -> str:
        return f"{self.shape}, mode={self.mode!r}, momentum={self.momentum}, eps={self.eps}"


def _constant(mean: Tensor, var: Tensor) -> Tensor:
    return var <= (CONSTANT * mean).square()
