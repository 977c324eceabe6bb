"""One of several processes, started by torchrun: its part of a batch, and that all together are as one."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
import torch.distributed as dist
from torch import Tensor, nn

dist.init_process_group("gloo")
RANK, WORLD = dist.get_rank(), dist.get_world_size()
torch.set_num_threads(1)


def all_of(checks: Iterable[Callable[[], None]]) -> NoReturn:
    """Each of them, and the end of this process: threads of torch that nobody waits for were seen to abort it."""
    for check in checks:
        check()
        if RANK == 0:
            sys.stdout.write(f"{check.__name__}: {WORLD} processes as one\n")
    sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)


def parts(n: int, how: str) -> list[int]:
    """Of a batch of n, how many each process has."""
    even = [n // WORLD] * WORLD
    if how == "uneven":
        even[0], even[-1] = even[0] - 1, n - sum(even[:-1]) + 1
    if how == "empty":
        even[0], even[1] = 0, even[0] + even[1]
    return [*even[:-1], n - sum(even[:-1])]


def mine(t: Tensor, sizes: list[int]) -> Tensor:
    return t.split(sizes)[RANK].clone(memory_format=torch.preserve_format)


def everywhere(t: Tensor) -> Tensor:
    t = t.clone()
    dist.all_reduce(t)
    return t


def same_bits(t: Tensor) -> None:
    first = t.clone()
    dist.broadcast(first, 0)
    assert torch.equal(first, t)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def equal_to_one_process(alone: nn.Module, together: nn.Module, shape: tuple[int, ...], how: str, skips: bool) -> None:
    """Two training steps and one of inference, outputs, gradients and states."""
    torch.manual_seed(0)
    sizes = parts(shape[0], how)
    for step in range(3):
        x, skip, dy = (1 + 2 * torch.randn(shape, dtype=torch.float64) for _ in range(3))
        if how == "channels_last":
            x, skip = (t.to(memory_format=torch.channels_last) for t in (x, skip))
        for m in (alone, together):
            m.train(step < 2).zero_grad()
        given = [t.requires_grad_() for t in ((x, skip) if skips else (x,))]
        here = [mine(t.detach(), sizes).requires_grad_() for t in given]
        y, z = alone(*given), together(*here)
        y.backward(dy)
        z.backward(mine(dy, sizes))
        close(z, mine(y.detach(), sizes))
        for t, u in zip(given, here, strict=True):
            close(u.grad, mine(t.grad, sizes))
        for p, q in zip(alone.parameters(), together.parameters(), strict=True):
            close(everywhere(q.grad), p.grad)
        for b, c in zip(alone.buffers(), together.buffers(), strict=True):
            close(c.double(), b.double())
            same_bits(c)
