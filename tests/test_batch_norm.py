"""Batch norm of a batch that two processes share: what its process-local ops promise, on every backend."""

import pytest
import torch
from common import Recorder, every_target, need

from normkernels.cases import OPS
from normkernels.ops._buffers import statistic_dtype
from normkernels.ops._channel_layouts import lies_last, like, view
from normkernels.ops.batch_norm import batch_norm_apply, batch_norm_dx, batch_norm_moments, batch_norm_sums
from normkernels.tolerance import given, judge

OP = OPS["batch_norm"]
# both layouts, (N, C) and (N, C, L), optional tensors present and absent, and channels that a naive merge would lose
IDS = (
    "3x33x7x7", "3x33x7x7-channels_last", "3x31x40-channels_last", "37x33", "2x5x3x4-plain", "2x6x2x5-all-relu",
    "channels_last-all-silu", "input-channels_last", "strided-channels", "2x24x3x3-far", "2x24x3x3-far-channels_last",
)  # fmt: skip
SAMPLES = [s for s in OP.samples if s.id in IDS]
DTYPES = {"float64": (torch.float64, None), "float32": (torch.float32, None), "mixed": (torch.bfloat16, torch.float32)}


def merged(found, counts):
    """Means and variances of two sets as those of both (Chan, Golub & LeVeque 1983)."""
    (mean, var), (mean2, var2) = found
    share, apart = counts[1] / sum(counts), mean2 - mean
    return mean + share * apart, (1 - share) * var + share * var2 + share * (1 - share) * apart.square()


def in_two_processes(tensors, dy, eps, activation, slope, backend):
    """Output and gradients of batch_norm in training, each half of the batch by itself but for what is merged."""
    input, skip, weight, bias = (tensors.get(k) for k in ("input", "skip", "weight", "bias"))
    last, C, dtype = lies_last(input), input.shape[1], statistic_dtype(input)
    settings = eps, activation or "identity", slope, last, backend

    def halves(t):
        return [None] * 2 if t is None else t.tensor_split(2)

    xs, skips, dys = ([view(t, last, True) for t in halves(t)] for t in (input, skip, dy))
    counts = [x.numel() // C for x in xs]
    found, sums = ([input.new_empty(2, *shape, dtype=dtype) for _ in xs] for shape in ((1, C), (C,)))
    for x, (mean, var) in zip(xs, found, strict=True):
        batch_norm_moments(x, mean, var, last, backend)
    statistics = merged(found, counts)
    ys, dxs, dskips = ([like(half, last) for half in halves(input)] for _ in range(3))
    for x, s, y in zip(xs, skips, ys, strict=True):
        batch_norm_apply(x, s, weight, bias, *statistics, view(y, last, True), *settings)
    calls = [(g, x, s, weight, bias, *statistics) for g, x, s in zip(dys, xs, skips, strict=True)]
    for call, (of_dy, of_dy_xhat) in zip(calls, sums, strict=True):
        batch_norm_sums(*call, of_dy, of_dy_xhat, *settings)
    total = sums[0] + sums[1]
    for call, dx, dskip in zip(calls, dxs, dskips, strict=True):
        to_skip = None if skip is None else view(dskip, last, True)
        batch_norm_dx(*call, *(total / sum(counts)), view(dx, last, True), to_skip, *settings)
    grads = {"input": torch.cat(dxs), "skip": torch.cat(dskips), "bias": total[0], "weight": total[1]}
    return {"output 0": torch.cat(ys)} | {f"grad {k}": grads[k].to(t.dtype) for k, t in tensors.items()}


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
@every_target
def test_two_processes(sample, dtypes, backend, device):
    """Moments, apply, sums and dx of two halves give the forward and backward of the whole batch."""
    need(OP, backend, device)
    tensors, (dy,) = given(OP, sample, *dtypes, device)
    call = [sample.call.get(k, default) for k, default in (("eps", 1e-5), ("activation", None), ("slope", 0.01))]
    reports = judge(OP, sample, in_two_processes(tensors, dy, *call, backend), *dtypes)
    wrong = [str(r) for r in reports if r.worst > 1]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("sample", SAMPLES[:4], ids=str)
def test_opcheck(sample):
    """The four ops as torch sees them."""
    tensors, (dy,) = given(OP, sample, torch.float32)
    with Recorder() as recorder:
        in_two_processes(tensors, dy, 1e-5, "gelu", 0.01, "reference")
    assert len({op for op, _ in recorder.calls}) == 4
    for op, args in recorder.calls[::2]:  # one of the halves
        torch.library.opcheck(op, args)
