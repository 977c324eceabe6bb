"""OnlineNorm1d, 2d and 3d: batch-free normalisation with statistics over time."""

import torch
from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops.online_norm import check_settings, online_norm


class _OnlineNorm(Stateful):
    """:func:`normkernels.functional.online_norm` with its state: any batch size, 1 included, from call to call.

    ``forward(input, skip=None)``. In ``eval()`` the statistics are constants. ``bias_correction=True`` starts them as
    the average of the samples seen, for a quicker start; it adds the buffer ``num_samples_tracked``.

    Args: as the function; ``num_features`` is C, ``affine`` gives a weight and a bias.

    State (buffers, in ``state_dict``; float32 even in a 16-bit model): ``running_mean``, ``running_var``,
    ``epsilon_1``, ``epsilon_y``. The last two are in units of the gradient: see :meth:`rescale_accumulators`. Replicas
    in data parallel training each have their own (DistributedDataParallel then broadcasts rank 0's, as of every
    buffer).

    Raises ValueError, naming the argument, if a number or a name is wrong.
    """

    running_mean: Tensor
    running_var: Tensor
    epsilon_1: Tensor
    epsilon_y: Tensor

    def __init__(
        self,
        num_features: int,
        alpha_fwd: float = 0.999,
        alpha_bkw: float = 0.99,
        eps: float = 1e-5,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        guard: str | None = "layer_scaling",
        ls_eps: float = 1e-5,
        clamp: float = 5.0,
        stable: bool = False,
        bias_correction: bool = False,
        bias: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.set_extras(activation=activation, slope=slope, backend=backend)
        check_settings(type(self).__name__, alpha_fwd, alpha_bkw, guard, clamp)
        self._set_up(num_features, eps, affine, bias, device, dtype)
        self.alpha_fwd, self.alpha_bkw, self.guard, self.ls_eps, self.clamp = alpha_fwd, alpha_bkw, guard, ls_eps, clamp
        self.stable, self.bias_correction = stable, bias_correction
        self._start(device, dtype, running_mean=0.0, running_var=1.0, epsilon_1=0.0, epsilon_y=0.0)
        if bias_correction:
            self._count("num_samples_tracked", device)
        self.reset_parameters()

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
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

    def extra_repr(self) -> str:
        guard = {"clamp": f"'clamp', clamp={self.clamp}"}.get(self.guard or "", repr(self.guard))
        shown = [
            f"{self.num_features}, alpha_fwd={self.alpha_fwd}, alpha_bkw={self.alpha_bkw}, eps={self.eps}",
            f"affine={self.affine}, guard={guard}",
            *(f"{name}=True" for name in ("stable", "bias_correction") if getattr(self, name)),
        ]
        return ", ".join([*shown, *filter(None, [super().extra_repr().removeprefix(", ")])])


class OnlineNorm1d(_OnlineNorm):
    __doc__ = _OnlineNorm.__doc__
    _RANKS = (2, 3)


class OnlineNorm2d(_OnlineNorm):
    __doc__ = _OnlineNorm.__doc__
    _RANKS = (4,)


class OnlineNorm3d(_OnlineNorm):
    __doc__ = _OnlineNorm.__doc__
    _RANKS = (5,)
