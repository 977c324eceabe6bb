"""Ops that only fill the buffers they are given; the backend is chosen inside, when the op runs."""

from collections import namedtuple
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from normkernels import _record
from normkernels._backends import ARGUMENTS, chosen, native, resolve
from normkernels._checks import PLAIN
from normkernels._exported import in_grad_mode, storable

Kernel = Callable[..., None]  # what calls an op

_LIBRARY = torch.library.Library("normkernels", "DEF")
_NATIVE = torch.library.Library("normkernels_C", "IMPL")


def watched(t: torch.Tensor) -> bool:
    """Whether somebody looks at the ops on t; in plain eager mode nobody does, and an op costs small shapes 5 us."""
    if torch.compiler.is_compiling() or type(t) not in PLAIN:
        return True
    return is_in_torch_dispatch_mode() and _record.active() is None


def kernel(schema: str) -> Kernel:
    """Define ``normkernels::<schema>`` with a trailing ``str? backend``, and return what calls it.

    Every result is a ``Tensor(a!)`` argument. So no fake kernel is needed, optional results are ``Tensor(a!)?``,
    and no backend can disagree with another about a shape or a dtype. What is compiled or exported for the native
    backend holds the native op itself, which a process without Python can load.
    """
    name = schema[: schema.index("(")]
    _LIBRARY.define(f"{schema[:-1]}, str? backend) -> ()", tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.normkernels, name).default
    ARGUMENTS[name] = namedtuple(name, [a.name for a in op._schema.arguments[:-1]])
    written = [i for i, a in enumerate(op._schema.arguments) if a.alias_info and a.alias_info.is_write]

    def run(*args):
        first = args[0]
        if first.numel() == 0:  # no kernel has to handle an empty batch; sums over it are zero
            for i in written:
                if args[i] is not None:
                    args[i].zero_()
        elif not first.is_meta:
            device, backend = first.device.type, args[-1]
            function = resolve(name, device, backend)
            if recorder := _record.active():
                recorder.kernel(name, chosen(name, device, backend), function, args[:-1], written)
            else:
                function(*args[:-1])

    def call(*args):
        if not watched(args[0]):
            run(*args)
        elif torch.compiler.is_compiling() and chosen(name, args[0].device.type, args[-1]) == "native":
            native(name)(*(storable(args[:-1]) if torch.compiler.is_exporting() else args[:-1]))
        else:
            op(*args)

    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, in_grad_mode(lambda: op, written), "Autograd")
    _NATIVE.impl(name, in_grad_mode(lambda: native(name), written), "Autograd")
    return call
