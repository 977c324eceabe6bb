"""StreamingNorm1d, 2d and 3d: long- and short-term statistics, and gradients of statistics."""

from collections.abc import Sequence
from typing import Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device
from torch.utils.hooks import RemovableHandle

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops.streaming_norm import check_settings, long_term_statistics, streaming_norm, streaming_norm_update


class _StreamingNorm(Stateful):
    r"""Streaming normalisation: statistics, and their gradients, mixed from a long and a short memory.

    .. math::
        s_{used} = \alpha_1 s_{long} + \alpha_2 s_{short}, \quad
        y = \text{activation}\Big(\frac{x - m_{used}}{\text{scale}_{used}} w + b + \text{skip}\Big)

    for a statistic s of each channel, the mean m or the scale :math:`(\overline{|x - m|^p} + \epsilon)^{1/p}`. Call
    :meth:`weights_changed` after every ``optimizer.step()``, or let :meth:`follow` do it: between two of these,
    mini-batches and the time steps of a recurrent loop share one short-term average. In ``eval()`` the long-term
    statistics are used. ``freeze()`` keeps them, weight and bias as they are.

    Args:
        num_features, affine, device, dtype: as in torch.nn.BatchNorm#d.
        eps: added to the mean of \|x - m\|^p, in its units.
        p: of the scale, at least 1; 2 is the standard deviation.
        alpha: weights of the long and the short term in a statistic.
        beta: weights of long term, short term and this mini-batch in its gradient. The defaults are the paper's for
            recurrent and online training; it has alpha = (0.5, 0.5), beta = (0.5, 0.5, 0) for feed-forward nets.
        kappa: decay of the long term and weight of the short one when weights change, for statistics and gradients.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, #space)``, for StreamingNorm1d also ``(N, C)``; output the same, in input's memory
        layout.

    Attributes: ``weight`` (1) and ``bias`` (0), ``(C,)``, or None; the buffers ``long_term`` and ``short_term``,
    ``(4, C)``, and ``counts``, ``(2, 2)``, float32 even in a 16-bit model.

    Raises:
        ValueError: a number, name, shape or dtype is wrong, or there is one value per channel in training.

    Example:
        >>> layer = nk.StreamingNorm#d(8)
        >>> handle = layer.follow(torch.optim.SGD(layer.parameters(), lr=0.1))
        >>> layer(torch.randn(4, 8, #5)).shape
        torch.Size([4, 8, #5])

    Source: Liao, Kawaguchi & Poggio 2016, arXiv:1610.06160, section 3; dtypes, gradients and determinism:
    :func:`normkernels.functional.streaming_norm`.
    """

    long_term: Tensor
    short_term: Tensor
    counts: Tensor

    p: float
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    kappa: tuple[float, ...]

    @constructor
    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = True, device: Device = None,
        dtype: torch.dtype | None = None, *, p: float = 2.0, alpha: Sequence[float] = (0.7, 0.3),
        beta: Sequence[float] = (0.7, 0.0, 0.3), kappa: Sequence[float] = (0.7, 0.3, 0.7, 0.3), bias: bool = True,
        activation: Activation | None = None, slope: float = 0.01, backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, affine, bias, device, dtype, **extras)
        check_settings(type(self).__name__, p, alpha, beta, kappa)
        self.p, self.alpha, self.beta, self.kappa = p, tuple(alpha), tuple(beta), tuple(kappa)
        self._start((4, num_features), device, dtype, long_term=0.0, short_term=0.0)
        self._start((2, 2), device, dtype, counts=0.0)
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

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says; the short term moves in training unless it is frozen."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        self._check_input_dim(input)
        return streaming_norm(
            input, self.long_term, self.short_term, self.counts, self.weight, self.bias, self._statistics_move(),
            self.alpha, self.beta, self.p, self.eps, skip=skip, **self.extras,
        )  # fmt: skip

    def _shown(self) -> tuple[str, ...]:
        return "eps", "affine", "p", "alpha", "beta", "kappa"


class StreamingNorm1d(_StreamingNorm, space=1):
    pass


class StreamingNorm2d(_StreamingNorm, space=2):
    pass


class StreamingNorm3d(_StreamingNorm, space=3):
    pass
