"""The ops of an exported program: their arguments as a file can hold them, and what they do in grad mode.

There they run, and say on the way back that they have no gradient.
"""

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch


def storable(args: Iterable[Any]) -> list[Any]:
    """The largest number for infinity (no bound), which no loader of AOTInductor's packages can read.

    It is infinity again where a kernel computes in float32.
    """
    return [math.copysign(sys.float_info.max, a) if isinstance(a, float) and math.isinf(a) else a for a in args]


class Barrier(torch.autograd.Function):
    """(name of an op, a buffer that it filled, tensors that it read) -> the buffer, whose gradient is an error."""

    @staticmethod
    def forward(ctx, name, buffer, *read):
        ctx.mark_dirty(buffer)
        ctx.name = name
        return buffer

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(
            f"{ctx.name} has no gradient in an exported program; export it under "
            "normkernels.use_backend('reference'), which gives a program of differentiable torch ops"
        )


def in_grad_mode(op: Callable[[], torch._ops.OpOverload], written: list[int]) -> Callable[..., None]:
    """The kernel of op for the autograd key."""

    def run(*args):
        with torch._C._AutoDispatchBelowAutograd():
            op()(*args)
        read = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad] if torch.is_grad_enabled() else []
        for i in written if read else ():
            if args[i] is not None:
                Barrier.apply(op().name(), args[i], *read)

    return run
