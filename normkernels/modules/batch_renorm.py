"""BatchRenorm1d, 2d and 3d: batch norm that trains on what it will infer with."""

from torch import Tensor
from torch.fx import Proxy

from normkernels.modules._leaf import leaf
from normkernels.modules._state import Stateful
from normkernels.ops.batch_renorm import Ramp, batch_renorm


class _BatchRenorm(Stateful):
    """:func:`normkernels.functional.batch_renorm` with its running statistics and the ramp of its bounds.

    ``forward(input, skip=None)``. ``momentum`` is the weight of a batch in the running statistics, as in torch.
    ``num_batches_tracked`` counts training calls: the bounds are those of batch norm until it is ``warmup_steps``, then
    they grow to ``r_max`` and ``d_max`` (see :meth:`bounds`).

    State (buffers, in ``state_dict``): ``running_mean`` (0), ``running_std`` (1), both float32 even in a 16-bit model,
    and ``num_batches_tracked`` (0).

    Raises ValueError, naming the argument, if a number or a name is wrong.
    """

    running_mean: Tensor
    running_std: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.01,
        affine: bool = True,
        device=None,
        dtype=None,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 5000,
        r_ramp_steps: int = 35000,
        d_ramp_steps: int = 20000,
        bias: bool = True,
        activation: str | None = None,
        slope: float = 0.01,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.set_extras(activation=activation, slope=slope, backend=backend)
        self._set_up(num_features, eps, affine, bias, device, dtype)
        self.momentum, self.r_max, self.d_max = momentum, r_max, d_max
        self.warmup_steps, self.r_ramp_steps, self.d_ramp_steps = warmup_steps, r_ramp_steps, d_ramp_steps
        self._ramp().check(type(self).__name__)
        self._start(device, dtype, running_mean=0.0, running_std=1.0)
        self._count("num_batches_tracked", device)
        self.reset_parameters()

    def _ramp(self) -> Ramp:
        return Ramp(self.r_max, self.d_max, self.warmup_steps, self.r_ramp_steps, self.d_ramp_steps)

    def bounds(self) -> list[Tensor]:
        """r_max and d_max of the next training call, scalars on the module's device."""
        return self._ramp().bounds(self.running_std, self.num_batches_tracked)

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        self._check_input_dim(input)
        return batch_renorm(
            input, self.running_mean, self.running_std, self.weight, self.bias, self._statistics_move(), self.momentum,
            self.eps, r_max=self.r_max, d_max=self.d_max, num_batches_tracked=self.num_batches_tracked,
            warmup_steps=self.warmup_steps, r_ramp_steps=self.r_ramp_steps, d_ramp_steps=self.d_ramp_steps, skip=skip,
            **self.extras,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = [
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}",
            *(f"{k}={v}" for k, v in self._ramp()._asdict().items()),
        ]
        return ", ".join([*shown, *filter(None, [super().extra_repr().removeprefix(", ")])])


class BatchRenorm1d(_BatchRenorm):
    __doc__ = _BatchRenorm.__doc__
    _RANKS = (2, 3)


class BatchRenorm2d(_BatchRenorm):
    __doc__ = _BatchRenorm.__doc__
    _RANKS = (4,)


class BatchRenorm3d(_BatchRenorm):
    __doc__ = _BatchRenorm.__doc__
    _RANKS = (5,)
