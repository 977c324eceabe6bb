"""Ops that only fill the buffers they are given; the backend is chosen inside, when the op runs."""

from collections.abc import Callable

import torch

from normkernels.backends import resolve

_LIBRARY = torch.library.Library("normkernels", "DEF")


def kernel(schema: str) -> Callable[..., None]:
    """Define ``normkernels::<schema>`` with a trailing ``str? backend``, and return the callable op.

    Every result is a ``Tensor(a!)`` argument. So no fake kernel is needed, optional results are ``Tensor(a!)?``,
    and no backend can disagree with another about a shape or a dtype.
    """
    name = schema[: schema.index("(")]
    _LIBRARY.define(f"{schema[:-1]}, str? backend) -> ()", tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.normkernels, name).default
    written = [i for i, a in enumerate(op._schema.arguments) if a.alias_info and a.alias_info.is_write]

    def run(*args):
        first = args[0]
        if first.numel() == 0:  # no kernel has to handle an empty batch; sums over it are zero
            for i in written:
                if args[i] is not None:
                    args[i].zero_()
        elif first.device.type != "meta":
            resolve(name, first.device.type, args[-1])(*args[:-1])

    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    return op
