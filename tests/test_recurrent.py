"""Recurrent ops on every backend: long sequences, derivatives, one op for all of time."""

import functools
from dataclasses import replace

import pytest
import torch
from common import every_target, need
from recurrent_layers import every_recurrent

from normkernels.cases._recurrent import MIXED, sample
from normkernels.tolerance import check, run

pytestmark = pytest.mark.usefixtures("seeded")


def long(op, steps, options):
    s = sample(op.stem, "long", steps, 3, 5, **options)
    tensors = s.present()
    if op.state:
        tensors["weight"] /= 10  # the gain that Cooijmans et al. advise; with larger ones errors grow with time
    return s.call, tensors, s.cotangents


@functools.cache
def loop(op, steps, mixed):
    """What torch's loop gives on the CPU: once for all backends."""
    looped = replace(op, function=lambda *, backend, **arguments: op.torch(**arguments))
    return run(looped, *long(op, steps, MIXED if mixed else {}), "reference")


@pytest.mark.parametrize("steps", [1, 2, 11, 200])
@every_target
@every_recurrent
def test_long_sequences(op, steps, backend, device):
    """As the loop of torch, forward and backward, through up to 200 steps."""
    need(op, backend, device)
    if backend != "native" and device == "cpu" and steps > 11:
        pytest.skip("the interpreter would take minutes, and the reference is torch's loop")
    for mixed in (False, True):
        arguments, tensors, cotangents = long(op, steps, MIXED if mixed else {})
        given = {k: t.to(device) for k, t in tensors.items()}, [dy.to(device) for dy in cotangents]
        got, want = run(op, arguments, *given, backend), loop(op, steps, mixed)
        for name in want:
            scale = max(1.0, want[name].abs().max().item())
            torch.testing.assert_close(got[name].cpu(), want[name], rtol=1e-9, atol=1e-9 * scale, msg=name)


@every_recurrent
def test_finite_differences(op):
    """First and second derivatives."""
    s = sample(op.stem, "small", 2, 2, 2, **MIXED)
    named = {k: t.detach().requires_grad_() for k, t in s.present().items() if k not in op.state}
    state = {k: t for k, t in s.present().items() if k in op.state}

    def function(*tensors):
        own = {k: t.clone() for k, t in state.items()}
        return op.function(**dict(zip(named, tensors, strict=True)), **own, **s.call, backend="reference")

    assert torch.autograd.gradcheck(function, list(named.values()))
    assert torch.autograd.gradgradcheck(function, list(named.values()))


@every_target
@every_recurrent
def test_without_gradients(op, backend, device):
    """Nothing is kept, and every bit is the same."""
    need(op, backend, device)
    for options in ({}, {"packed": True, **MIXED}):
        s = sample(op.stem, "kept", 3, 4, 6, device=device, **options)

        def call(s=s):
            tensors = {k: t.clone() if k in op.state else t for k, t in s.present().items()}
            return op.function(**tensors, **s.call, backend=backend)

        s.tensors["input"].requires_grad_()
        with_graph = call()
        with torch.no_grad():
            assert all(map(torch.equal, with_graph, call()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the sizes of launches are too small for a GPU")
@every_recurrent
def test_triton_walks_over_tiles(op, monkeypatch):
    """Rows, or a batch, that do not fit one tile, and programs with several tiles of rows."""
    need(op, "triton", "cpu")
    from normkernels._backends.triton.recurrent import batch, layer

    for module in (batch, layer):
        monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(layer, "PROGRAMS", 2)
    for options in ({}, MIXED):
        reports = check(op, sample(op.stem, "tiles", 2, 5 if op.state else 33, 17, **options), "triton", torch.float32)
        assert all(r.worst <= 1 for r in reports), [str(r) for r in reports if r.worst > 1]
