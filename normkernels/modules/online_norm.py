"""OnlineNorm1d, 2d and 3d: batch-free normalisation with statistics over time."""

from typing import Never

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.types import Device

from normkernels._activations import Activation
from normkernels._arguments import constructor, refuse
from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops.online_norm import check_settings, online_norm


class _OnlineNorm(Stateful):
    r"""Online normalisation: statistics over time in place of a batch, so any batch size, 1 included.

    .. math::
        z_t = \frac{x_t - \mu_{t-1}}{\sqrt{\sigma^2_{t-1} + \epsilon}}, \quad
        y_t = \text{activation}(\text{guard}(z_t w + b) + \text{skip}_t)

    for one sample after the other, each of which then moves :math:`\mu` and :math:`\sigma^2` with decay ``alpha_fwd``;
    backward, control processes with decay ``alpha_bkw`` keep the gradient right over time. In ``eval()`` the statistics
    are constants. ``freeze()`` keeps them, weight and bias as they are.

    Args:
        num_features, affine, device, dtype: as in torch.nn.BatchNorm#d.
        alpha_fwd, alpha_bkw: decay factors per sample, of the statistics and of the control process.
        eps: added to the variance (units of x²).
        guard: against growing activations: ``"layer_scaling"``, ``"clamp"`` or None.
        ls_eps: of layer scaling, added to the mean square.
        clamp: the bound of ``"clamp"``.
        stable: damp the control process, for an ``alpha_bkw`` far from 1.
        bias_correction: start the statistics as the average of the samples seen, for a quicker start.
        bias: without, an affine layer has a weight only.
        activation: None or a name of ``normkernels.ACTIVATIONS``, applied last.
        slope: of ``"leaky_relu"`` for negative values.
        backend: ``"triton"``, ``"native"`` or ``"reference"``; None takes the first that can run here.

    Shape:
        input and skip ``(N, C, #space)``, for OnlineNorm1d also ``(N, C)``; output the same, in input's memory layout.

    Attributes: ``weight`` (1) and ``bias`` (0), ``(C,)``, or None; the buffers ``running_mean`` (0), ``running_var``
    (1), ``epsilon_1`` (0) and ``epsilon_y`` (0), ``(C,)``, float32 even in a 16-bit model; with ``bias_correction``
    also ``num_samples_tracked`` (0). ``epsilon_1`` and ``epsilon_y`` are in units of the gradient: see
    :meth:`rescale_accumulators`. Replicas in data parallel training each have their own (DistributedDataParallel then
    broadcasts rank 0's, as of every buffer); :class:`SyncOnlineNorm` has one state for all.

    Raises:
        ValueError: a number, name, shape or dtype is wrong.

    Example:
        >>> layer = nk.OnlineNorm#d(8, alpha_fwd=0.99)
        >>> layer(torch.randn(1, 8, #5)).shape
        torch.Size([1, 8, #5])

    Source: Chiley et al. 2019, arXiv:1905.05894, equations 8 to 12; dtypes, gradients and determinism:
    :func:`normkernels.functional.online_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    epsilon_1: Tensor
    epsilon_y: Tensor

    alpha_fwd: float
    alpha_bkw: float
    guard: str | None
    ls_eps: float
    clamp: float
    stable: bool
    bias_correction: bool

    @constructor
    def __init__(
        self, num_features: int, alpha_fwd: float = 0.999, alpha_bkw: float = 0.99, eps: float = 1e-5,
        affine: bool = True, device: Device = None, dtype: torch.dtype | None = None, *,
        guard: str | None = "layer_scaling", ls_eps: float = 1e-5, clamp: float = 5.0, stable: bool = False,
        bias_correction: bool = False, bias: bool = True, activation: Activation | None = None, slope: float = 0.01,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        extras = {"activation": activation, "slope": slope, "backend": backend}
        super().__init__(num_features, eps, affine, bias, device, dtype, **extras)
        check_settings(type(self).__name__, alpha_fwd, alpha_bkw, guard, clamp)
        self.alpha_fwd, self.alpha_bkw, self.guard, self.ls_eps, self.clamp = alpha_fwd, alpha_bkw, guard, ls_eps, clamp
        self.stable, self.bias_correction = stable, bias_correction
        zeros = {"epsilon_1": 0.0, "epsilon_y": 0.0}
        self._start((num_features,), device, dtype, running_mean=0.0, running_var=1.0, **zeros)
        if bias_correction:
            self._start((), device, torch.long, num_samples_tracked=0)
        self.reset_parameters()

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says; the state moves in training unless it is frozen."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)
        self._check_input_dim(input)
        return online_norm(
            input, self.running_mean, self.running_var, self.epsilon_1, self.epsilon_y, self.weight, self.bias,
            self._statistics_move(), self.alpha_fwd, self.alpha_bkw, self.eps, guard=self.guard, ls_eps=self.ls_eps,
            clamp=self.clamp, stable=self.stable, num_samples_tracked=getattr(self, "num_samples_tracked", None),
            skip=skip, **self.extras,
        )  # fmt: skip

    @torch.no_grad()
    def rescale_accumulators(self, factor: float | Tensor) -> None:
        """The loss is from now on ``factor`` times as large (a new loss scale, say): so are the accumulators."""
        self.epsilon_1.mul_(factor)
        self.epsilon_y.mul_(factor)

    def _shown(self) -> list[str]:
        clamp = ["clamp"] if self.guard == "clamp" else []
        switches = [name for name in ("stable", "bias_correction") if getattr(self, name)]
        return ["alpha_fwd", "alpha_bkw", "eps", "affine", "guard", *clamp, *switches]


class OnlineNorm1d(_OnlineNorm, space=1):
    pass


class OnlineNorm2d(_OnlineNorm, space=2):
    pass


class OnlineNorm3d(_OnlineNorm, space=3):
    pass
