"""Layers that are written once and come for 1, 2 and 3 dims of space."""

SPACES = {1: "L", 2: "H, W", 3: "D, H, W"}


class Ranked:
    """Mixin: ``class X2d(_X, space=2)`` is ``_X`` for inputs with two dims of space, and documented so.

    In the docstring of ``_X``, ``#d`` stands for ``2d``, ``#space`` for ``H, W`` and ``#5`` for the sizes ``5, 5``.
    """

    SPACE: int

    def __init_subclass__(cls, space: int | None = None, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if space is not None:
            cls.SPACE = space
            written = next(base.__doc__ for base in cls.__mro__ if base.__doc__) or ""
            fives = ", ".join(["5"] * space)
            cls.__doc__ = written.replace("#d", f"{space}d").replace("#space", SPACES[space]).replace("#5", fives)
