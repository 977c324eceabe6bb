"""Almost valid calls of the native ops: each must raise or return, and write nothing beyond its own results.

The valid calls are those that the samples of ``normkernels.cases`` make. A mutated call has one or two arguments that
are wrong in shape, dtype, layout, memory or value. Every tensor lies between guards that are looked at after the call.
A crash ends the process; the file of ``--log`` then holds the call. From the repository's root, for instance

    python tests/fuzz_native.py --calls 100000 --seed 7 layer_norm rms_norm
"""

import argparse
import os
import random
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from normkernels.cases import OPS
from normkernels.ops.weight_norm import project
from normkernels.tolerance import given, run

GUARD, SENTINEL = 1024, 0xA5  # bytes before and behind each tensor, and what they hold
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64)
VALUES = {
    bool: (True, False),
    int: (0, 1, -1, 3, 1 << 40, -(1 << 62)),
    float: (0.0, -1.0, 1.0, 2.0, float("nan"), float("inf"), 1e300),
    str: ("identity", "relu", "prelu", "tanh", "nonsense", "", "x" * 5000),
    list: ([], [0], [-1, 5], [1 << 62, 1 << 62], [1], [1] * 40, [2, 1], [4]),
}
SIZES = ([], [0], [5], [-5], [1 << 62] * 2, [4, 5], [2, 2], [1] * 99, [4, 4, 4])


class Recorder(TorchDispatchMode):
    """The calls of native ops: those of this package's ops, which have the backend for a last argument."""

    def __init__(self):
        super().__init__()
        self.calls: dict[str, list[tuple]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("normkernels", "normkernels_C"):
            own = args[:-1] if func.namespace == "normkernels" else args
            if all(a.numel() for a in own if isinstance(a, torch.Tensor)):
                self.calls.setdefault(func._opname, []).append(tuple(own))
        return func(*args, **(kwargs or {}))


def record(stem: str, samples: int) -> dict[str, list[tuple]]:
    """Valid calls of each op of a normaliser: of its smallest samples, in float32, and in 16 bits beside it."""
    op = OPS[stem]
    recorder = Recorder()
    small = sorted(op.samples, key=lambda s: sum(t.numel() for t in s.present().values()))[: samples + 4]
    for sample in random.Random(stem).sample(small, min(samples, len(small))):
        for dtypes in ((torch.float32, None), (torch.bfloat16, torch.float32)):
            with recorder:
                tensors, cotangents = given(op, sample, *dtypes)
                run(op, sample.call, tensors, cotangents, "native")
    if stem == "weight_norm":
        with recorder:
            project([torch.randn(3, 4), torch.randn(5, 33)], "native")
    if stem == "batch_norm":
        for dy, x, skip, weight, bias, mean, var, dx, dskip, _, _, eps, _, *rest in list(recorder.calls[f"{stem}_bwd"]):
            sums = [torch.empty_like(mean) for _ in range(2)]
            first = (dy, x, skip, weight, bias, mean, var)
            recorder.calls.setdefault(f"{stem}_apply", []).append((*first[1:], dx, eps, *rest))
            recorder.calls.setdefault(f"{stem}_moments", []).append((x, *sums, rest[-1]))
            recorder.calls.setdefault(f"{stem}_sums", []).append((*first, *sums, eps, *rest))
            recorder.calls.setdefault(f"{stem}_dx", []).append((*first, mean, var, dx, dskip, eps, *rest))
    return {name: calls for name, calls in recorder.calls.items() if name.startswith(stem)}


class Guarded:
    """Copies of a call's tensors, each between guards; arguments that are one tensor stay one."""

    def __init__(self, args: tuple):
        self.buffers: list[torch.Tensor] = []
        self.placed: dict[tuple, torch.Tensor] = {}
        self.args = [self.copy(a) for a in args]

    def copy(self, a):
        if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
            return [self.copy(t) for t in a]
        if not isinstance(a, torch.Tensor):
            return a
        key = a.data_ptr(), tuple(a.shape), a.stride()
        if key not in self.placed:
            t = self.place(a.shape, a.stride(), a.dtype)
            self.placed[key] = t if 0 in a.stride() else t.copy_(a)
        return self.placed[key]

    def place(self, shape, stride, dtype) -> torch.Tensor:
        """An unfilled tensor between guards."""
        span = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if all(shape) else 0
        buffer = torch.full((2 * GUARD + span * dtype.itemsize,), SENTINEL, dtype=torch.uint8)
        self.buffers.append(buffer)
        inner = buffer[GUARD : len(buffer) - GUARD].view(dtype)
        return inner.fill_(1).as_strided(shape, stride, inner.storage_offset())

    def check(self) -> None:
        for buffer in self.buffers:
            if not (buffer[:GUARD] == SENTINEL).all() or not (buffer[len(buffer) - GUARD :] == SENTINEL).all():
                raise SystemExit("wrote beyond a tensor")


def reshaped(rnd: random.Random, guarded: Guarded, t: torch.Tensor) -> torch.Tensor:
    """t, or part of it, or a new tensor, in a shape or a layout that is not its own."""
    shape = list(t.shape)
    dim = rnd.randrange(t.dim()) if t.dim() else 0
    kind = rnd.choice(("less", "more", "none", "transposed", "expanded", "stepped", "wide", "flat", "deeper", "first"))
    if kind in ("less", "more", "none") and shape:
        shape[dim] = {"less": shape[dim] - 1, "more": shape[dim] + rnd.choice((1, 64)), "none": 0}[kind]
        return guarded.place(shape, t.new_empty(shape, device="meta").stride(), t.dtype)
    if kind == "transposed" and t.dim() > 1:
        return t.transpose(dim, dim - 1)
    if kind == "expanded" and shape:
        return t.narrow(dim, 0, 1).expand(shape)
    if kind == "stepped" and shape:
        return t[(slice(None),) * dim + (slice(None, None, 2),)]
    if kind == "wide" and t.dim() > 1:  # the same shape, with a gap behind each row
        return guarded.place(shape, t.new_empty([*shape[:-1], shape[-1] + 3], device="meta").stride(), t.dtype)
    if kind == "first":
        return t.reshape(-1)[:1]
    return t.reshape(-1) if kind == "flat" and t.dim() != 1 else t.unsqueeze(dim)


def mutated(rnd: random.Random, guarded: Guarded, a):
    """Another value for an argument."""
    if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        i = rnd.randrange(len(a))
        other = [mutated(rnd, guarded, a[i]), a[i - 1], a[i]]
        return rnd.choice(([], [*a, a[i]], [t for t in [*a[:i], rnd.choice(other), *a[i + 1 :]] if t is not None]))
    if not isinstance(a, torch.Tensor):
        kind = rnd.choice((bool, int, float, str, list)) if a is None else type(a)
        return rnd.choice(VALUES.get(kind, (None,)))
    if a.dtype == torch.int64 and rnd.random() < 0.7:
        return torch.tensor(rnd.choice(SIZES), dtype=torch.int64)
    tensors = list(guarded.placed.values())
    kind = rnd.choice(("shape",) * 5 + ("dtype", "alias", "alias", "overlap", "absent", "meta", "sparse", "freed"))
    if kind == "dtype":
        return a.to(rnd.choice(DTYPES))
    if kind == "alias":
        alike = [
            t for t in tensors if t is not a and t.numel() >= a.numel() and t.dtype == a.dtype and t.is_contiguous()
        ]
        return rnd.choice(alike).view(-1)[: a.numel()].view(a.shape) if alike else rnd.choice(tensors)
    if kind == "overlap" and a.is_contiguous() and a.numel() > 1:
        return a.view(-1)[1:]
    if kind == "freed":
        t = torch.empty_like(a)
        t.untyped_storage().resize_(0)
        return t
    others = {"absent": lambda: None, "meta": lambda: a.to("meta"), "sparse": a.to_sparse}
    return others[kind]() if kind in others else reshaped(rnd, guarded, a)


def describe(a) -> str:
    return (
        f"{a.dtype}{tuple(a.shape)}/{a.stride()}" if isinstance(a, torch.Tensor) and not a.is_sparse else repr(a)[:60]
    )


@torch.no_grad()  # as everywhere below autograd
def fuzz(name: str, calls: list[tuple], count: int, seed: int, log: int) -> tuple[int, int]:
    """How many mutated calls returned, and how many raised."""
    op = getattr(torch.ops.normkernels_C, name).default
    for args in calls:
        valid = Guarded(args)
        op(*valid.args)
        valid.check()
    returned = 0
    for i in range(count):
        rnd = random.Random(f"{name}-{seed}-{i}")
        guarded = Guarded(rnd.choice(calls))
        args = list(guarded.args)
        for at in rnd.sample(range(len(args)), min(len(args), rnd.choice((1, 1, 2)))):
            args[at] = mutated(rnd, guarded, args[at])
        os.pwrite(log, f"{name} seed {seed} call {i}: {'; '.join(map(describe, args))}".ljust(3000).encode(), 0)
        try:
            op(*args)
            returned += 1
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            pass
        guarded.check()
    return returned, count - returned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stems", nargs="*", default=list(OPS), help="normalisers; all without any")
    parser.add_argument("--calls", type=int, default=300, help="mutated calls of each op")
    parser.add_argument("--samples", type=int, default=6, help="samples of each normaliser that are mutated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", default=os.devnull, help="where the call that is being made is written down")
    args = parser.parse_args()
    log = os.open(args.log, os.O_WRONLY | os.O_CREAT)
    torch.manual_seed(args.seed)
    for stem in args.stems:
        for name, calls in sorted(record(stem, args.samples).items()):
            returned, raised = fuzz(name, calls, args.calls, args.seed, log)
            sys.stdout.write(f"{name}: {len(calls)} valid; mutated: {returned} returned, {raised} raised\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
