"""One of several processes, started by torchrun: norms of DTensors give what they give of the full tensor."""

import copy

import torch
from spanned import WORLD, all_of
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import normkernels as nk

MESH = init_device_mesh("cpu", (WORLD,))
ROWS = {"LayerNorm": (8,), "RMSNorm": (8,)}
CHANNELS: list[tuple[str, tuple, dict]] = [
    ("BatchNorm2d", (8,), {}),
    ("BatchRenorm2d", (8,), {}),
    ("GroupNorm", (4, 8), {}),
    ("InstanceNorm2d", (8,), {}),
    ("LayerNorm2d", (8,), {}),
    ("OnlineNorm2d", (8, 0.9, 0.8), {}),
    ("OnlineNorm2d", (8, 0.9, 0.8), {"guard": "clamp", "clamp": 0.7, "stable": True, "bias_correction": True}),
    ("StreamingNorm2d", (8,), {"beta": (0.5, 0.2, 0.3)}),
    ("StreamingNorm2d", (8,), {"p": 1.0, "activation": "silu"}),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 1 + 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def full(t: Tensor | None) -> Tensor:
    assert t is not None
    return t.full_tensor() if isinstance(t, DTensor) else t


def close(one: Tensor | None, other: Tensor | None) -> None:
    torch.testing.assert_close(full(one), full(other), rtol=1e-12, atol=1e-12)


def distributed(module: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are replicated DTensors."""
    new = copy.deepcopy(module)
    for m in new.modules():
        for name, p in list(m.named_parameters(recurse=False)):
            m.register_parameter(name, nn.Parameter(distribute_tensor(p.detach(), MESH, [Replicate()])))
        for name, b in list(m.named_buffers(recurse=False)):
            m.register_buffer(name, distribute_tensor(b, MESH, [Replicate()]))
    return new


def as_of_the_full_tensor(module: nn.Module, shape: tuple[int, ...], place: Placement, added: bool) -> None:
    """Output, gradients and buffers of a second step, and that the output lies where input does, and its gradient."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(draw(*p.shape, seed=10 + i))
    together, names = distributed(module), ("x", "dy", "added")[: 2 + added]
    whole = {k: draw(*shape, seed=i) for i, k in enumerate(names)}
    parts = {k: distribute_tensor(t, MESH, [place]) for k, t in whole.items()}
    results = []
    for m, t in ((module, whole), (together, parts)):
        given = [t[k].requires_grad_() for k in names if k != "dy"]
        for _ in range(2):  # each with gradients of its own: torch adds up wrongly where two of them share memory
            for leaf in (*given, *m.parameters()):
                leaf.grad = None
            y = m(*given)
            y, *_ = y if isinstance(y, tuple) else (y,)
            y.backward(t["dy"])
        results.append([y, *(g.grad for g in given), *(p.grad for p in m.parameters()), *m.buffers()])
    for one, other in zip(*results, strict=True):
        close(one, other)
    assert [t.placements for t in results[1][:2]] == [(place,)] * 2, module


def rows() -> None:
    for kind, args in ROWS.items():
        for place in (Replicate(), Shard(0), Shard(1), Shard(2)):
            for added in (False, True):
                as_of_the_full_tensor(getattr(nk, kind)(*args, dtype=torch.float64), (4, 8, 8), place, added)


def channels() -> None:
    for kind, args, extras in CHANNELS:
        for place in (Replicate(), Shard(0), Shard(1), Shard(3)):
            added = kind != "LayerNorm2d"
            module = getattr(nk, kind)(*args, dtype=torch.float64, **extras)
            as_of_the_full_tensor(module, (4, 8, 3, 4), place, added)


class Block(nn.Module):
    """A pre-norm feed-forward block."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(nk.LayerNorm(8)), Block(nk.RMSNorm(8)), nk.LayerNorm(8)).double()


def sequence_parallel(model: nn.Module, mesh) -> None:
    """Norms on sequences in shards, the products between them tensor-parallel."""
    for block in list(model.children())[:2]:
        plan = {
            "norm": SequenceParallel(),
            "up": ColwiseParallel(input_layouts=Shard(1)),
            "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        }  # fmt: skip
        parallelize_module(block, mesh, plan)
    outer = {
        "0": PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Shard(1),)),
        "2": SequenceParallel(use_local_output=True),
    }  # fmt: skip
    parallelize_module(model, mesh, outer)


def trained(alone: nn.Module, together: nn.Module, mine: slice, mesh) -> None:
    """Some steps of both; ``together`` sees these samples of the batch."""
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (alone, together)]
    for step in range(3):
        x, target = draw(4, 8, 8, seed=step), draw(4, 8, 8, seed=step + 9)
        y, z = alone(x), together(x[mine])
        z = DTensor.from_local(full_local(z), mesh, [Shard(1)]).full_tensor()
        close(y[mine], z)
        for o, (out, goal) in zip(optimizers, ((y, target), (z, target[mine])), strict=True):
            o.zero_grad()
            nn.functional.mse_loss(out, goal).backward()
            o.step()
    for p, q in zip(alone.parameters(), together.parameters(), strict=True):
        close(p, q)


def full_local(t: Tensor) -> Tensor:
    return t.to_local() if isinstance(t, DTensor) else t


def sequence_and_tensor_parallel() -> None:
    alone, together = net(), net()
    sequence_parallel(together, MESH)
    trained(alone, together, slice(None), MESH)


def fully_sharded_and_tensor_parallel() -> None:
    """2 x 2: samples in two halves with shards of the parameters, sequences and products in two."""
    if WORLD != 4:
        return
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    alone, together = net(), net()
    sequence_parallel(together, mesh["tensor"])
    for block in (*together.children(), together):
        fully_shard(block, mesh=mesh["data"])
    half = mesh["data"].get_local_rank()
    trained(alone, together, slice(2 * half, 2 * half + 2), mesh["tensor"])


all_of((rows, channels, sequence_and_tensor_parallel, fully_sharded_and_tensor_parallel))
