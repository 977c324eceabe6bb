"""What the modules that carry a state share: its first values, and that it can be started again."""

import torch
from torch import Tensor

from normkernels._checks import fail
from normkernels.modules._channels import Running


class Stateful(Running):
    """State in buffers; see :meth:`reset_running_stats`."""

    num_features: int
    eps: float
    affine: bool
    _START: dict[str, float]  # buffer -> its first value
    _RANKS: tuple[int, ...]  # of the input

    def _set_up(self, num_features: int, eps: float, affine: bool, bias: bool, device, dtype) -> None:
        """Attributes and parameters, torch.nn.BatchNorm's."""
        self.num_features, self.eps, self.affine = num_features, eps, affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            data = torch.empty(num_features, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if data is None else torch.nn.Parameter(data))

    def _start(self, device, dtype, shape: tuple[int, ...] | None = None, **starts: float) -> None:
        """Buffers of that shape, (C,) by default, and their first values."""
        self._START = getattr(self, "_START", {}) | starts
        for name in starts:
            self.register_buffer(name, torch.empty(shape or (self.num_features,), device=device, dtype=dtype))

    def _count(self, name: str, device) -> None:
        self._START = self._START | {name: 0}
        self.register_buffer(name, torch.tensor(0, dtype=torch.long, device=device))

    @torch.no_grad()
    def _forget(self) -> None:
        for name, value in self._START.items():
            getattr(self, name).fill_(value)

    def reset_parameters(self) -> None:
        """Back to the first state, weight 1 and bias 0; what is frozen starts again too, and stays frozen."""
        self._forget()
        for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                torch.nn.init.constant_(parameter, value)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self._RANKS:
            rule = "have " + " or ".join(map(str, self._RANKS)) + " dimensions (N, C, *)"
            fail(type(self).__name__, "input", rule, f"shape {tuple(input.shape)}")

    def _statistics_move(self) -> bool:
        return self.training and not self.frozen_statistics
