"""What layers share whose statistics or state span processes."""

from typing import TYPE_CHECKING, Any, Never

from torch import Tensor
from torch.fx import Proxy

from normkernels import _checks
from normkernels._arguments import refuse
from normkernels.distributed.statistics import spans
from normkernels.modules._leaf import leaf
from normkernels.ops import _channels


class Spanning:
    """Mixin before the layer of one process, which it is where nothing is to be exchanged; any dims of space."""

    process_group: Any

    if TYPE_CHECKING:
        weight: Tensor | None
        bias: Tensor | None

        def _statistics_move(self) -> bool:
            """Whether the layer takes statistics from its input now."""
            ...

        def _spanning(self, x: Tensor, skip: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
            """y, of checked tensors in their dtypes, with what the other processes have."""
            ...

    def forward(self, input: Tensor, skip: Tensor | None = None, **unknown: Never) -> Tensor:
        """y, as the class says."""
        if isinstance(input, Proxy):
            return leaf(self, input, skip)
        if unknown:
            refuse(self, unknown)  # type: ignore[arg-type]
        if not self._statistics_move() or not spans(self.process_group):
            return super().forward(input, skip)  # type: ignore[misc]
        self._check_input_dim(input)
        name = type(self).__name__
        return self._spanning(*_channels.check_channels(name, input, self.weight, self.bias, skip))

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            rule = "have at least 2 dimensions (N, C, *)"
            _checks.fail(type(self).__name__, "input", rule, f"shape {tuple(input.shape)}")
