"""Layers for any number of dims of space."""

from torch import Tensor

from normkernels import _checks


class AnyRank:
    """Mixin: as many dims of space as there are."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            rule = "have at least 2 dimensions (N, C, *)"
            _checks.fail(type(self).__name__, "input", rule, f"shape {tuple(input.shape)}")
