"""One of several processes, started by torchrun: layers alone in DDP, FSDP1 and FSDP2 train as one process does.

Each process has a part of the batch. Norms of a batch, or with a state, are synchronised first.
"""

import contextlib
import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from layers import LAYERS, Layer, output
from spanned import RANK, WORLD, all_of, close, same_bits
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import normkernels as nk

STEPS, EACH = 3, 2  # steps, and samples of each process
OF_THEIR_OWN_BATCH = "DataNorm", "BatchNormRNN", "BatchNormLSTM"  # statistics that no layer of ours synchronises
Wrapper = Callable[[nn.Module], Any]


def whole(t: Tensor) -> Tensor:
    return t.full_tensor() if isinstance(t, DTensor) else t


def steps(layer: Layer, alone: nn.Module, together: nn.Module) -> None:
    """Both are trained by SGD: the first on all samples, the other one on those of this process.

    Wrappers divide sums of gradients by WORLD, so before that they are WORLD times those of one process, and what a
    state keeps of them is: one process gets a loss WORLD times as large, and a rate as much smaller.
    """
    batch = 1 if layer.name.endswith(("RNN", "LSTM", "GRU")) else 0
    shape = [*layer.shape[:batch], WORLD * EACH, *layer.shape[batch + 1 :]]
    optimizers = [torch.optim.SGD(m.parameters(), rate) for m, rate in ((alone, 0.1 / WORLD), (together, 0.1))]
    for step in range(STEPS):
        x = 1 + 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        part = x.chunk(WORLD, batch)[RANK].clone()
        outputs = [output(m, t) for m, t in ((alone, x), (together, part))]
        close(outputs[1], outputs[0].chunk(WORLD, batch)[RANK])
        for y, optimizer, scale in zip(outputs, optimizers, (WORLD, 1), strict=True):
            optimizer.zero_grad()
            (scale * (y - 1).square().mean()).backward()
            optimizer.step()


def as_one(wrap: Wrapper) -> None:
    for layer in LAYERS:
        if layer.name in OF_THEIR_OWN_BATCH or layer.name.startswith("Sync"):  # what others become
            continue
        if layer.name.startswith("InstanceNorm"):  # its running statistics are of the samples here, as torch's
            layer = layer._replace(switches={"affine": True})
        alone = layer.used()
        together = copy.deepcopy(alone)
        with contextlib.redirect_stdout(io.StringIO()):
            nk.synchronize_(together)
        together = wrap(together)
        try:
            steps(layer, alone, together)
            compare(alone, together)
        except Exception as error:
            error.add_note(str(layer))
            raise


def compare(alone: nn.Module, together: nn.Module) -> None:
    inner = together.module if isinstance(together, DistributedDataParallel | FullyShardedDataParallel) else together
    sharded = isinstance(together, FullyShardedDataParallel)
    with FullyShardedDataParallel.summon_full_params(together) if sharded else torch.no_grad():
        for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
            for (name, p), (other, q) in zip(kind(alone), kind(inner), strict=True):
                assert name == other
                close(whole(q.detach()).double(), p.detach().double())
                same_bits(whole(q.detach()))


def data_parallel() -> None:
    as_one(DistributedDataParallel)


def fully_sharded() -> None:
    """The class of the first version, which flattens the parameters."""
    as_one(lambda module: FullyShardedDataParallel(module, use_orig_params=True, device_id=torch.device("cpu")))


def fully_sharded_by_dim() -> None:
    """The function, which makes DTensors of the parameters, and of the layer a class of its own."""
    as_one(fully_shard)


warnings.simplefilter("ignore")
all_of((data_parallel, fully_sharded, fully_sharded_by_dim))
