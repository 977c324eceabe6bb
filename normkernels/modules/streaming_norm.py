"""StreamingNorm1d, 2d and 3d: long- and short-term statistics, and gradients of statistics."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.utils.hooks import RemovableHandle

from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops.streaming_norm import check_settings, long_term_statistics, streaming_norm, streaming_norm_update


class _StreamingNorm(Stateful):
    """:func:`normkernels.functional.streaming_norm` with its state.

    ``forward(input, skip=None)``. Call :meth:`weights_changed` after every ``optimizer.step()``, or let :meth:`follow`
    do it: between two of these, mini-batches and the time steps of a recurrent loop share one short-term average. The
    defaults are the paper's for recurrent and online training; it has alpha = (0.5, 0.5), beta = (0.5, 0.5, 0) for
    feed-forward nets. In ``eval()`` the long-term statistics are used.

    State (buffers, in ``state_dict``; float32 even in a 16-bit model): ``long_term``, ``short_term`` and ``counts``.

    Raises ValueError, naming the argument, if a number or a name is wrong.
    """

    long_term: Tensor
    short_term: Tensor
    counts: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        p: float = 2.0,
        alpha: Sequence[float] = (0.7, 0.3),
        beta: Sequence[float] = (0.7, 0.0, 0.3),
        kappa: Sequence[float] = (0.7, 0.3, 0.7, 0.3),
        bias: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.set_extras(activation=activation, slope=slope, backend=backend)
        check_settings(type(self).__name__, p, alpha, beta, kappa)
        self._set_up(num_features, eps, affine, bias, device, dtype)
        self.p, self.alpha, self.beta, self.kappa = p, tuple(alpha), tuple(beta), tuple(kappa)
        self._start(device, dtype, (4, num_features), long_term=0.0, short_term=0.0)
        self._start(device, dtype, (2, 2), counts=0.0)
        self.reset_parameters()

    def _forget(self) -> None:
        super()._forget()
        with torch.no_grad():
            self.long_term[1].fill_(1.0)

    @property
    def running_mean(self) -> Tensor:
        """The mean that ``eval()`` uses, (C,)."""
        return long_term_statistics(self.long_term, self.short_term, self.counts)[0]

    @property
    def running_scale(self) -> Tensor:
        """The scale that ``eval()`` uses, (C,)."""
        return long_term_statistics(self.long_term, self.short_term, self.counts)[1]

    def weights_changed(self) -> None:
        """An optimizer step was taken: the short term enters the long one, and starts again."""
        streaming_norm_update(self.long_term, self.short_term, self.counts, self.kappa)

    def follow(self, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Call :meth:`weights_changed` after every step of ``optimizer``, until the handle returned is removed."""
        return optimizer.register_step_post_hook(lambda *_: self.weights_changed())

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        self._check_input_dim(input)
        return streaming_norm(
            input, self.long_term, self.short_term, self.counts, self.weight, self.bias, self._statistics_move(),
            self.alpha, self.beta, self.p, self.eps, skip=skip, **self.extras,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = [
            f"{self.num_features}, eps={self.eps}, affine={self.affine}",
            *(f"{name}={getattr(self, name)}" for name in ("p", "alpha", "beta", "kappa")),
        ]
        return ", ".join([*shown, *filter(None, [super().extra_repr().removeprefix(", ")])])


class StreamingNorm1d(_StreamingNorm):
    __doc__ = _StreamingNorm.__doc__
    _RANKS = (2, 3)


class StreamingNorm2d(_StreamingNorm):
    __doc__ = _StreamingNorm.__doc__
    _RANKS = (4,)


class StreamingNorm3d(_StreamingNorm):
    __doc__ = _StreamingNorm.__doc__
    _RANKS = (5,)
