"""Far from 0, and where squares fit no float32: as near float64 as N(0, 1) is.

What is right is found from a sample that no dtype has trouble with: a norm does not see a power of two by which its
input is multiplied (eps is 0), a centred one does not see a constant that is added without rounding.
"""

import functools
import math

import pytest
import torch
from common import STATEFUL, TARGETS, centred, need

from normkernels.cases import OPS, Sample
from normkernels.tolerance import check, given, judge, run

STATELESS = [op for op in OPS.values() if op.kind in ("norm", "filters") and op not in STATEFUL]
CENTRED = [op for op in STATELESS if centred(op)]
F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
STEP = 1 / 16  # one unit in the last place of a float32 near 1e6

# what a program, a tile or a bundle of planes holds; odd; more than it holds
ROWS = [(5, 64), (3, 4099), (2, 40_000)]
IMAGES = [(4, 6, 5, 8), (3, 6, 5, 7), (2, 4, 72, 64)]
CASES = [
    pytest.param(op, shape, last, id=f"{op.stem}-{'x'.join(map(str, shape))}{'-last' * last}")
    for op in STATELESS
    for shape in (ROWS if op.samples[0].first.dim() == 2 else IMAGES)
    for last in ([False] if op.samples[0].first.dim() == 2 else [False, True])
]
HOST = [t for t in TARGETS if t[0] != "triton" and t[1] == "cpu"]  # the GPU's kernels have float32 squares
every_target = pytest.mark.parametrize(("backend", "device"), [pytest.param(*t, id="-".join(t)) for t in HOST])
every_case = pytest.mark.parametrize(("op", "shape", "last"), CASES)
every_centred_case = pytest.mark.parametrize(("op", "shape", "last"), [c for c in CASES if c.values[0] in CENTRED])
every_power = pytest.mark.parametrize("power", [-100, -66, 66, 100])  # 2^100 is 1.3e30, and 2^66 squared overflows
every_dtype = pytest.mark.parametrize("dtype", [F32, BF16, F64], ids=["float32", "bfloat16", "float64"])
every_activation = pytest.mark.parametrize("activation", [None, "silu"])


@functools.cache
def made(op, shape, last, activation=None, **call) -> Sample:
    """N(0, 1) in steps; one sample for every backend and power, whose tolerance is derived once."""
    torch.manual_seed(0)
    layout = {"channels_last": True} if last else {}
    sample = op.make(shape, F64, "cpu", activation=activation, **layout)
    tensors = dict(sample.tensors)
    name = next(iter(tensors))
    tensors[name] = (tensors[name] / STEP).round() * STEP
    nothing = 1e-300 if op.stem == "batch_norm" else 0.0  # which refuses 0 in training
    known = {"eps": nothing} if "eps" in sample.call or op.stem == "weight_standardization" else {}
    return Sample(sample.id, sample.call | known | call, tensors, sample.cotangents, sample.dims)


def results(op, sample, dtype, backend, device, change) -> dict[str, torch.Tensor]:
    tensors, cotangents = given(op, sample, dtype, None, device)
    name = next(iter(tensors))
    return run(op, sample.call, tensors | {name: change(tensors[name])}, cotangents, backend)


def right(op, sample, got, dtype, only=""):
    wrong = [str(r) for r in judge(op, sample, got, dtype) if r.worst > 1 and only in r.name]
    assert not wrong, "\n".join(wrong)


@every_dtype
@every_power
@every_case
@every_target
def test_magnitude(op, shape, last, backend, device, power, dtype):
    need(op, backend, device)
    sample, factor = made(op, shape, last), 2.0**power
    got = results(op, sample, dtype, backend, device, lambda x: x * factor)
    name = f"grad {next(iter(sample.tensors))}"
    got |= {name: (got[name].double() * factor).to(dtype)}
    right(op, sample, got, dtype)


@every_activation
@pytest.mark.parametrize("offset", [1e4, -1e6])
@every_centred_case
@every_target
def test_offset(op, shape, last, backend, device, offset, activation):
    need(op, backend, device)
    sample = made(op, shape, last, activation)
    got = results(op, sample, F32, backend, device, lambda x: x + offset)
    right(op, sample, got, F32)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=["float32", "bfloat16"])
@every_power
@pytest.mark.parametrize("op", [op for op in STATELESS if op.stem != "weight_norm"], ids=str)
@every_target
def test_magnitude_beside_eps(op, backend, device, power, dtype):
    """Far below eps the input is scaled by a constant, far above it eps is nothing."""
    need(op, backend, device)
    sample = made(op, (ROWS if op.samples[0].first.dim() == 2 else IMAGES)[0], False, eps=1e-5)
    name, x = next(iter(sample.tensors.items()))
    moved = Sample(sample.id, sample.call, {**sample.tensors, name: x * 2.0**power}, sample.cotangents, sample.dims)
    wrong = [str(r) for r in check(op, moved, backend, dtype, device) if r.worst > 1]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("power", [-100, 100])
@every_target
def test_batch_statistics_saturate(backend, device, power):
    """A variance beyond float32 is kept as a large number, so that no running variance is lost for ever."""
    op = OPS["batch_norm"]
    need(op, backend, device)
    x = torch.randn(8, 5, 4, 4, device=device) * 2.0**power
    running_mean, running_var = torch.zeros(5, device=device), torch.ones(5, device=device)
    op.function(x, running_mean, running_var, training=True, backend=backend)
    assert running_var.isfinite().all()
    assert running_mean.isfinite().all()
    assert math.isclose(running_mean[0].item(), 0.1 * x[:, 0].double().mean().item(), rel_tol=1e-4)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("op", OPS.values(), ids=str)
def test_two_backwards_add_up(op, backend):
    """Leaves that are added to, each once a backward: no two gradients may share their memory."""
    need(op, backend, "cpu")
    sample = max((s for s in op.samples if not s.big), key=lambda s: (len(s.present()), s.first.dim()))
    tensors, cotangents = given(op, sample, F64)
    leaves = {k: t.clone().requires_grad_() for k, t in tensors.items() if k not in op.state}
    found = []
    for _ in range(2):
        state = {k: tensors[k].clone() for k in op.state if k in tensors}
        outputs = op.function(**leaves, **state, **sample.call, backend=backend)
        torch.autograd.backward(outputs, [torch.ones_like(dy) for dy in cotangents])
        found.append({k: t.grad.clone() for k, t in leaves.items()})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], 2 * grad, rtol=1e-9, atol=1e-12)
