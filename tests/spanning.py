"""Run by torchrun, on each of several processes: what they compute together is what one computes alone.

torchrun --standalone --nproc-per-node 3 tests/spanning.py
"""

import copy
import itertools

import torch
import torch.distributed as dist
from spanned import RANK, WORLD, all_of, close, equal_to_one_process, mine, parts, same_bits
from torch import nn
from torch.utils.checkpoint import checkpoint

import normkernels as nk


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


def online_norms() -> None:
    """One process sees the samples of the first, then those of the second, and so on: mine() splits them so."""
    options = [
        {}, {"guard": None, "bias_correction": True}, {"guard": "clamp", "clamp": 0.7, "activation": "silu"},
        {"stable": True, "alpha_bkw": 0.5, "affine": False}, {"alpha_fwd": 1.0}, {"alpha_fwd": 0.0, "alpha_bkw": 0.0},
    ]  # fmt: skip
    shapes = (12, 5, 3, 4), (12, 5)
    for shape, option, how in itertools.product(shapes, options, ("even", "uneven", "empty", "channels_last")):
        if how == "channels_last" and len(shape) == 2:
            continue
        numbers = {"alpha_fwd": 0.9, "alpha_bkw": 0.8} | option
        alone = getattr(nk, f"OnlineNorm{'2d' if len(shape) == 4 else '1d'}")(5, dtype=torch.float64, **numbers)
        equal_to_one_process(alone, synchronised(alone), shape, how, not option or "activation" in option)


def samples_that_are_not_finite() -> None:
    """They move nothing, wherever they are."""
    for option in ({"guard": None}, {"guard": None, "bias_correction": True}):
        alone = nk.OnlineNorm1d(5, 0.9, 0.8, dtype=torch.float64, **option)
        together = synchronised(alone)
        x, dy = torch.randn(2, 12, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x[2, 1], x[7, 3, 1], dy[9, 4] = torch.inf, torch.nan, torch.nan
        for m, t, g in ((alone, x, dy), (together, mine(x, parts(12, "even")), mine(dy, parts(12, "even")))):
            m(t.requires_grad_()).backward(g)
        for b, c in zip(alone.buffers(), together.buffers(), strict=True):
            close(c.double(), b.double())
            same_bits(c)
            assert c.isfinite().all()


def streaming_norms() -> None:
    options = [
        {}, {"p": 1.0, "activation": "silu"}, {"p": 3.0, "affine": False},
        {"alpha": (0.0, 1.0), "beta": (0.0, 0.0, 1.0)}, {"alpha": (0.5, 0.5), "beta": (0.5, 0.2, 0.3)},
    ]  # fmt: skip
    for option, how in itertools.product(options, ("even", "uneven", "empty", "channels_last")):
        alone = nk.StreamingNorm2d(5, dtype=torch.float64, **option)
        together = synchronised(alone)
        for _ in range(2):  # the long term takes part in the second one
            equal_to_one_process(alone, together, (12, 5, 3, 4), how, not option or "activation" in option)
            alone.weights_changed(), together.weights_changed()


def precisions() -> None:
    """The same bits of state everywhere in float32 and for 16-bit input too, and near to that of one process."""
    kinds = nk.BatchRenorm2d, nk.OnlineNorm2d, nk.StreamingNorm2d
    for kind, dtype in itertools.product(kinds, (torch.float32, torch.bfloat16, torch.float16)):
        alone = kind(5).to(dtype)
        together = synchronised(alone)
        for step in range(2):
            torch.manual_seed(step)
            x, dy = (torch.randn(12, 5, 3, 4).to(dtype) for _ in range(2))
            for m, t, g in ((alone, x, dy), (together, mine(x, parts(12, "uneven")), mine(dy, parts(12, "uneven")))):
                m(t.requires_grad_()).backward(g)
        for b, c in zip(alone.buffers(), together.buffers(), strict=True):
            same_bits(c)
            torch.testing.assert_close(c, b, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def no_samples_at_all() -> None:
    for kind in (nk.BatchNorm2d, nk.BatchRenorm2d, nk.OnlineNorm2d, nk.StreamingNorm2d):
        together = synchronised(kind(5))
        with torch.no_grad():
            for b in together.buffers():
                b.add_(2)
        before = {name: b.clone() for name, b in together.named_buffers() if "batches" not in name}
        y = together(torch.empty(0, 5, 3, 4, requires_grad=True))
        y.sum().backward()
        assert y.shape == (0, 5, 3, 4)
        assert all(torch.equal(t, together.get_buffer(name)) for name, t in before.items())


def synchronised(alone: nn.Module) -> nn.Module:
    """A copy with random parameters, as those of alone then are."""
    with torch.no_grad():
        for p in alone.parameters():
            p.copy_(torch.linspace(0.5, 1.5, p.numel()).view_as(p))
    together = copy.deepcopy(alone)
    nk.synchronize_(together)
    assert type(together).__name__.startswith("Sync")
    return together


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
    for kind in (nk.SyncBatchNorm, nk.SyncBatchRenorm, nk.SyncOnlineNorm, nk.SyncStreamingNorm):
        plain = kind(5, dtype=torch.float64)
        again = copy.deepcopy(plain)
        plain(x).square().sum().backward()
        wanted, x.grad = x.grad, None
        checkpoint(again, x, use_reentrant=False).square().sum().backward()
        close(x.grad, wanted)
        x.grad = None
        if kind is not nk.SyncBatchNorm:  # which moves again, as torch's
            for b, c in zip(plain.buffers(), again.buffers(), strict=True):
                assert torch.equal(b, c)
    if WORLD > 2:  # the compiler sees the same collectives
        return
    for kind in (nk.SyncBatchNorm, nk.SyncBatchRenorm, nk.SyncOnlineNorm, nk.SyncStreamingNorm):
        module = kind(5, dtype=torch.float64, activation="relu")
        other = copy.deepcopy(module)
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            y, z = module(x), compiled(x)
            close(z, y)
            close(*(torch.autograd.grad(t.square().sum(), x)[0] for t in (z, y)))
            for b, c in zip(module.buffers(), other.buffers(), strict=True):
                close(c.double(), b.double())


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


STATES = online_norms, samples_that_are_not_finite, streaming_norms, precisions, no_samples_at_all
all_of((batch_norms, batch_renorms, *STATES, groups, checkpoints_and_compilers, data_parallel))
