"""The reference against independent witnesses: torch in float64, finite differences, and mpmath in 50 digits."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from common import STATEFUL, call, every_op, leaves, small
from torch.autograd import gradcheck, gradgradcheck

from normkernels import ACTIVATIONS
from normkernels.cases import OPS
from normkernels.ops._ways import closed_forms
from normkernels.tolerance import given, run

GOLDEN = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "golden").glob("*.json")}


def agree(got: dict, want: dict, rtol: float) -> None:
    for name in want:
        atol = rtol * max([1.0, *want[name].abs().flatten().tolist()])
        torch.testing.assert_close(got[name], want[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


SAMPLES = [pytest.param(op, s, id=f"{op.stem}-{s.id}") for op in OPS.values() for s in op.samples]


TORCH_FAILS = {
    ("group_norm", "2x12x0x4"): "torch gives dweight = nan for images without pixels",
    ("instance_norm", "0x12x3x4"): "torch raises IndexError for an empty batch",
    ("batch_norm_rnn", "3x0x6"): "torch raises for an empty batch",
    ("batch_norm_lstm", "3x0x6"): "torch raises for an empty batch",
    ("batch_renorm", "0x12x3x4"): "torch's moments of nothing are nan",
    ("batch_renorm", "2x12x0x4"): "torch's moments of nothing are nan",
    ("online_norm", "0x12x3x4"): "a loop over no samples has nothing to stack",
    ("weight_norm", "zeros"): "torch divides by the norm",
    ("weight_norm", "0x33"): "torch's kernel crashes on a weight without filters",
    ("weight_norm", "4x0"): "torch divides by the norm",
    ("streaming_norm", "0x12x3x4"): "torch's moments of nothing are nan",
    ("streaming_norm", "2x12x0x4"): "torch's moments of nothing are nan",
}


@pytest.mark.parametrize("way", [closed_forms, contextlib.nullcontext], ids=["closed", "composed"])
@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_against_torch(op, sample, way):
    """Values and gradients in float64: closed forms and ordinary ops here, torch.nn.functional and autograd there."""
    if (op.stem, sample.id) in TORCH_FAILS:
        pytest.skip(TORCH_FAILS[op.stem, sample.id])
    tensors, cotangents = given(op, sample, torch.float64)
    # contiguous: torch's group norm of channels_last takes E[x²] - E[x]²
    dense = {"input": torch.Tensor.contiguous}

    def function(*, backend, **kwargs):
        return op.torch(**{k: dense.get(k, lambda t: t)(t) for k, t in kwargs.items()})

    twin = replace(op, function=function)
    with way():
        got, want = (run(o, sample.call, tensors, cotangents, "reference") for o in (op, twin))
    # rows at 1e4 +- 1e-2 lose six of sixteen digits before any formula starts
    agree(got, want, 1e-7 if "far" in sample.id or "constant" in sample.id else 1e-9)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_gradients_that_can_be_differentiated(op, sample):
    """create_graph=True differentiates the formula itself, and must find what the closed form finds."""
    tensors, cotangents = given(op, sample, torch.float64)
    with closed_forms():
        want = run(op, sample.call, tensors, cotangents, "reference")
    named = {k: t.requires_grad_() for k, t in tensors.items() if k not in op.state}
    outputs = op.function(**(tensors | named), **sample.call, backend="reference")
    grads = torch.autograd.grad(outputs, list(named.values()), cotangents, create_graph=True)
    found = {f"grad {k}": g.detach() for k, g in zip(named, grads, strict=True)}
    agree(found, {k: want[k] for k in found}, 1e-7 if "far" in sample.id or "constant" in sample.id else 1e-9)


@every_op
def test_second_derivatives_of_closed_forms(op):
    """A recipe's backward, differentiated, finds what the formula does; of a residual's sum, which is returned, too."""
    sample = small(op, 2, 3, torch.float64, added=True, activation="silu")
    constants, found = {"training": False} if op in STATEFUL else {}, []
    for way in (closed_forms, contextlib.nullcontext):
        named = leaves(op, sample)
        with way():
            outputs = call(op, sample, "reference", **constants, **named)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            squares = sum(y.square().sum() for y in outputs)
            first = torch.autograd.grad(squares, list(named.values()), create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), list(named.values())))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", OPS.values(), ids=str)
def test_without_gradients(op):
    """Nothing is kept then: a recurrent op has buffers of one step instead of all."""
    tensors, _ = given(op, op.samples[0], torch.float64)

    def found(grad):
        with closed_forms(), torch.set_grad_enabled(grad):
            own = {k: t.clone().requires_grad_(grad and k not in op.state) for k, t in tensors.items()}
            return op.function(**own, **op.samples[0].call, backend="reference")

    torch.testing.assert_close(found(False), found(True), rtol=0, atol=0)


@pytest.mark.parametrize(("activation", "added"), [*((a, False) for a in ACTIVATIONS), (None, True), ("mish", True)])
@every_op
def test_finite_differences(op, activation, added):
    """First and second derivatives; with a state for constants, where the gradient is no derivative in training.

    The second ones along one direction of all entries: one by one they take ten times as long.
    """
    sample = small(op, 2, 3, torch.float64, added=added, activation=activation)
    constants = {"training": False} if op in STATEFUL else {}
    named = leaves(op, sample)

    def function(*tensors):
        return call(op, sample, "reference", **constants, **dict(zip(named, tensors, strict=True)))

    assert gradcheck(function, list(named.values()))
    assert gradgradcheck(function, list(named.values()), fast_mode=True)


def golden(stem, values):
    """The tensor that golden/make.py writes: pixels of layer_norm_2d, channels of two images, or rows as they are."""
    t = torch.tensor(values, dtype=torch.float64)
    if stem == "layer_norm_2d" and t.dim() == 2:
        return t.T[None]
    return t.view(2, 4, 3) if t.shape == (8, 3) else t


@pytest.mark.parametrize("stem", OPS)
def test_golden(stem):
    """Values and gradients that were computed without torch; every activation."""
    op = OPS[stem]
    seen = set()
    for case in GOLDEN[stem]:
        seen.add(case["call"].get("activation"))
        tensors, want = ({k: golden(stem, v) for k, v in case[part].items()} for part in ("tensors", "want"))
        cotangents = [golden(stem, dy) for dy in case["cotangents"]]
        call = case["call"] | ({"normalized_shape": (4,)} if "normalized_shape" in op.samples[0].call else {})
        call |= {"batch_sizes": torch.tensor(call["batch_sizes"])} if "batch_sizes" in call else {}
        agree(run(op, call, tensors, cotangents, "reference"), want, 1e-11)
    assert seen == ({None} if op.kind in ("filters", "recurrent") else set(ACTIVATIONS))


def test_default_eps_of_rms_norm():
    """eps=None is the machine epsilon that torch takes."""
    op = OPS["rms_norm"]
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = (1e-4 * torch.randn(5, 33)).to(dtype)
        got, want = op.function(x, 33, backend="reference"), torch.nn.functional.rms_norm(x, (33,))
        torch.testing.assert_close(got, want)
