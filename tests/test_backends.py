"""Every backend, dtype and sample against the float64 reference: outputs and gradients."""

import pytest
import torch
from common import CHANNELS, DEVICES, TARGETS, call, every_op, every_op_with_residual, every_target, leaves, need, small

from normkernels.cases import OPS
from normkernels.tolerance import check, run

F64, F32, BF16, F16 = torch.float64, torch.float32, torch.bfloat16, torch.float16
DTYPES = {"float64": (F64, F64), "float32": (F32, F32), "bfloat16": (BF16, BF16), "float16": (F16, F16)}
MIXED = {"bfloat16+float32": (BF16, F32), "float16+float32": (F16, F32)}


def slow(op, sample, name):
    """What would take the interpreter of Triton too long: it runs one program after the other."""
    if op.stem == "online_norm" and len(sample.first) > (6 if "-" in sample.id or name != "float32" else 100):
        return True
    if op in CHANNELS and name != "float32":  # many samples: the larger ones in one dtype
        return sample.first.numel() > 3000 or name == "float16+float32"
    return sample.big and (name != "float32" or sample.first.numel() > 80_000)


def chosen(op, sample, name, backend, device):
    """What a sample is and what its numbers are stored as are two things: float32, and in turn three of the others.

    One of the others where Triton is interpreted.
    """
    interpreted = backend == "triton" and device == "cpu"
    others = [other for other in (*DTYPES, *MIXED) if other != "float32"]
    turn = (others.index(name) - op.samples.index(sample)) % 5 if name in others else 0
    return turn < (1 if interpreted else 3) and not (interpreted and slow(op, sample, name))


def thin(op, sample, name):
    """A loop over steps for each of the draws behind a tolerance takes long: two samples in the rarer dtypes."""
    return op.kind == "recurrent" and name in ("float16", *MIXED) and sample not in op.samples[:2]


GRID = [
    pytest.param(op, sample, dtypes, backend, device, id=f"{op.stem}-{sample.id}-{name}-{backend}-{device}")
    for op in OPS.values()
    for sample in op.samples
    for name, dtypes in (DTYPES | MIXED).items()
    for backend, device in TARGETS
    # parameters in another dtype need parameters
    if name not in MIXED or any(p in sample.present() for p in op.parameters)
    if not thin(op, sample, name)
    if chosen(op, sample, name, backend, device)
]


@pytest.mark.parametrize(("op", "sample", "dtypes", "backend", "device"), GRID)
def test_against_float64(op, sample, dtypes, backend, device):
    need(op, backend, device)
    reports = check(op, sample, backend, dtypes[0], device, dtypes[1])
    wrong = [str(r) for r in reports if r.worst > 1]
    assert not wrong, "\n".join(wrong)


@every_target
@every_op
def test_only_the_wanted_gradients(op, backend, device):
    """Any subset of inputs may need a gradient, and the others do not change it."""
    need(op, backend, device)
    sample = small(op, device=device, added=True, activation="silu")
    want = run(op, sample.call, sample.present(), list(sample.cotangents), backend)
    for name in leaves(op, sample):
        tensors = {k: t.requires_grad_(k == name) for k, t in leaves(op, sample).items()}
        outputs = call(op, sample, backend, **tensors)
        pairs = zip(outputs if isinstance(outputs, tuple) else (outputs,), sample.cotangents, strict=True)
        used, cotangents = zip(*((y, dy) for y, dy in pairs if y.requires_grad), strict=True)
        (grad,) = torch.autograd.grad(used, [tensors[name]], cotangents)
        assert torch.equal(grad, want[f"grad {name}"]), name


@every_target
@every_op_with_residual
def test_one_output_used(op, backend, device):
    """With a residual either output may be left out of the loss."""
    need(op, backend, device)
    sample = small(op, device=device, added=True)
    x = sample.tensors["input"].requires_grad_()
    y, s = op.function(**sample.present(), **sample.call, backend=backend)
    dy, ds = sample.cotangents
    both, of_y, of_s = (
        torch.autograd.grad(outputs, x, grads, retain_graph=True)[0]
        for outputs, grads in [((y, s), (dy, ds)), ((y,), (dy,)), ((s,), (ds,))]
    )
    assert torch.equal(of_s, ds)
    torch.testing.assert_close(of_y + of_s, both)


@every_target
@every_op
def test_gradient_strides(op, backend, device):
    """An expanded or permuted cotangent gives the gradient of the same values laid out densely, kernels bit for bit."""
    need(op, backend, device)
    sample = small(op, device=device)
    x = sample.tensors["input"].requires_grad_()
    y = call(op, sample, backend)
    dy = sample.cotangents[0]
    last_first = dy.movedim(1, 0).contiguous().movedim(0, 1)
    for odd in (dy[:1, :1].expand_as(dy), dy[:, :1].expand_as(dy), last_first, dy.new_tensor(0.3).expand_as(dy)):
        got, want = (torch.autograd.grad(y, x, g, retain_graph=True)[0] for g in (odd, odd.contiguous()))
        if backend == "reference":  # torch's own sums depend on strides
            torch.testing.assert_close(got, want)
        else:
            assert torch.equal(got, want), odd.stride()


@pytest.mark.parametrize("device", DEVICES)
@every_op
def test_channels_last_stays(op, device):
    """Dense outputs: images keep their memory format, rows come out contiguous."""
    sample = small(op, device=device)
    x = sample.tensors["input"]
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    y = call(op, sample, input=x)
    assert y.stride() == x.stride()


@pytest.mark.parametrize("device", DEVICES)
def test_triton_sums_many_partial_rows(device):
    """More partial rows than one step takes, which whole calls reach only on a GPU with many multiprocessors."""
    need(OPS["rms_norm"], "triton", device)
    from normkernels._backends.triton.base.sums import finalise

    partial_w, partial_b = torch.randn(2, 300, 37, device=device, dtype=torch.float64)
    dweight, dbias = torch.empty(2, 37, device=device, dtype=torch.float64)
    finalise(partial_w, partial_b, dweight, dbias)
    torch.testing.assert_close(dweight, partial_w.sum(0))
    torch.testing.assert_close(dbias, partial_b.sum(0))
