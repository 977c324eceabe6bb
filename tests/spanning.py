"""Run by torchrun, on each of several processes: what they compute together is what one computes alone.

torchrun --standalone --nproc-per-node 3 tests/spanning.py
"""

import copy
import itertools
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import normkernels as nk

dist.init_process_group("gloo")
RANK, WORLD = dist.get_rank(), dist.get_world_size()
torch.set_num_threads(1)


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


def batch_norms() -> None:
    shapes = {1: (12, 5), 2: (12, 5, 3, 4), 3: (12, 5, 2, 3, 2)}
    for rank, how in itertools.product(shapes, ("even", "uneven", "empty", "channels_last")):
        if how == "channels_last" and rank != 2:
            continue
        options = [{}, {"affine": False}, {"activation": "silu"}, {"momentum": None}, {"track_running_stats": False}]
        options = options if rank == 2 else options[:1]  # they know nothing of the rank
        for option, skips in itertools.product(options, (False, True)):
            alone = getattr(nk, f"BatchNorm{rank}d")(5, dtype=torch.float64, **option)
            with torch.no_grad():
                for p in alone.parameters():
                    p.uniform_(0.5, 1.5)
            together = nk.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(alone))
            assert type(together) is nk.SyncBatchNorm
            equal_to_one_process(alone, together, shapes[rank], how, skips)


def batch_renorms() -> None:
    for how, skips in itertools.product(("even", "uneven", "empty", "channels_last"), (False, True)):
        options = {"warmup_steps": 1, "r_ramp_steps": 2, "d_ramp_steps": 2, "momentum": 0.3, "activation": "tanh"}
        alone = nk.BatchRenorm2d(5, dtype=torch.float64, **options)
        alone.running_mean.fill_(0.4), alone.num_batches_tracked.fill_(2)
        together = copy.deepcopy(alone)
        nk.synchronize_(together)
        equal_to_one_process(alone, together, (12, 5, 3, 4), how, skips)


def groups() -> None:
    """A group of processes is a world of its own."""
    first = dist.new_group([0])
    others = dist.new_group(list(range(1, WORLD)))
    module = nk.SyncBatchNorm(5, process_group=first if RANK == 0 else others, dtype=torch.float64)
    torch.manual_seed(RANK)
    x = torch.randn(4, 5, dtype=torch.float64)
    module(x)
    if RANK == 0:
        close(module.running_mean, 0.1 * x.mean(0))


def checkpoints_and_compilers() -> None:
    torch.manual_seed(RANK)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for kind in (nk.SyncBatchNorm, nk.SyncBatchRenorm):
        plain = kind(5, dtype=torch.float64)
        again = copy.deepcopy(plain)
        plain(x).square().sum().backward()
        wanted, x.grad = x.grad, None
        checkpoint(again, x, use_reentrant=False).square().sum().backward()
        close(x.grad, wanted)
        x.grad = None
        if kind is nk.SyncBatchRenorm:
            close(again.running_mean, plain.running_mean)
    if WORLD > 2:  # the compiler sees the same collectives
        return
    module = nk.SyncBatchNorm(5, dtype=torch.float64, activation="relu")
    compiled = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    close(compiled(x), module(x))
    module(x).square().sum().backward()
    wanted, x.grad = x.grad, None
    compiled(x).square().sum().backward()
    close(x.grad, wanted)
    x.grad = None


def data_parallel() -> None:
    """DistributedDataParallel trains to the bits on every process, and as one process trains on the whole batch."""
    torch.manual_seed(0)
    alone = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(45, 2)).double()
    together = copy.deepcopy(alone)
    nk.convert(together)
    nk.synchronize_(together)
    together = nn.parallel.DistributedDataParallel(together)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (alone, together)]
    for _ in range(5):
        x, t = torch.randn(4 * WORLD, 3, 5, 5, dtype=torch.float64), torch.randn(4 * WORLD, 2, dtype=torch.float64)
        for m, o, (a, b) in zip(
            (alone, together), optimizers, ((x, t), (x.chunk(WORLD)[RANK], t.chunk(WORLD)[RANK])), strict=False
        ):
            o.zero_grad()
            nn.functional.mse_loss(m(a), b).backward()
            o.step()
    for p, q in zip(alone.state_dict().values(), together.module.state_dict().values(), strict=True):
        close(q, p)
        same_bits(q)


for check in (batch_norms, batch_renorms, groups, checkpoints_and_compilers, data_parallel):
    check()
    if RANK == 0:
        sys.stdout.write(f"{check.__name__}: {WORLD} processes as one\n")
dist.destroy_process_group()
