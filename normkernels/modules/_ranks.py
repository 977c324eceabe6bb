"""Layers that are written once and come for 1, 2 and 3 dims of space."""

from typing import Any

from torch import Tensor

from normkernels._checks import fail
from normkernels._messages import shown

SPACES = {1: "L", 2: "H, W", 3: "D, H, W"}


class Ranked:
    """Mixin: ``class X2d(_X, space=2)`` is ``_X`` for inputs with two dims of space, and documented so.

    In the docstring of ``_X``, ``#d`` stands for ``2d``, ``#space`` for ``H, W`` and ``#5`` for the sizes ``5, 5``.
    """

    SPACE: int
    DIMS: tuple[int, ...]  # how many an input may have

    def __init_subclass__(cls, space: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if space is not None:
            cls.SPACE, cls.DIMS = space, cls._dims(space)
            written = next(base.__doc__ for base in cls.__mro__ if base.__doc__) or ""
            fives = ", ".join(["5"] * space)
            cls.__doc__ = written.replace("#d", f"{space}d").replace("#space", SPACES[space]).replace("#5", fives)

    @staticmethod
    def _dims(space: int) -> tuple[int, ...]:
        return (2, 3) if space == 1 else (space + 2,)

    def _check_input_dim(self, input: Tensor) -> None:
        """Asked in every call, so that what is no tensor is found by what it lacks."""
        try:
            if input.dim() in self.DIMS:
                return
        except AttributeError:
            pass
        name = type(self).__name__
        if not isinstance(input, Tensor):
            fail(name, "input", "be a torch.Tensor", shown(input))
        rule = "have " + " or ".join(map(str, self.DIMS)) + " dimensions (N, C, *)"
        hint = "one image alone: input.unsqueeze(0)" if input.dim() + 1 in self.DIMS and input.dim() > 1 else ""
        fail(name, "input", rule, f"shape {tuple(input.shape)}", hint)
