"""Dtypes beside each other, autocast, and tensors of tensors: as torch.nn has them."""

import itertools

import pytest
import torch
from common import NORMS, call, every_op, small

import normkernels as nk
from normkernels import _checks

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
PAIRS = list(itertools.product(DTYPES, DTYPES))
every_pair = pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda d: str(d).removeprefix("torch."))


@pytest.mark.filterwarnings("ignore")  # torch's own says that it is slow for some pairs
@every_pair
def test_rms_norm_takes_any_weight(first, second):
    """Value, dtype and gradients are torch's."""
    torch.manual_seed(0)
    x, w, dy = torch.randn(5, 33).to(first), torch.randn(33).to(second), torch.randn(5, 33).to(first)
    results = []
    for function in (nk.functional.rms_norm, torch.nn.functional.rms_norm):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        y = function(leaves[0], (33,), leaves[1])
        results.append([y, *torch.autograd.grad(y, leaves, dy)])
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype
        of = torch.finfo(first)  # torch rounds y once more, before it is scaled, and dweight after each product
        torch.testing.assert_close(got, want, rtol=4 * of.eps, atol=4 * of.eps * want.abs().max().item())


@every_pair
@every_op
def test_added_in_another_dtype(op, first, second):
    """What is added before or after: the sum is in the wider dtype, as torch has it, and so is what comes of it."""
    wide = torch.promote_types(first, second)
    sample = small(op, dtype=first, added=True, parameter_dtype=first)
    added = sample.tensors[op.added].to(second)

    def others():
        return {k: t.to(wide, copy=True) for k, t in sample.present().items() if k in (*op.state, *op.parameters)}

    leaves = {"input": sample.tensors["input"].requires_grad_(), op.added: added.requires_grad_()}
    outputs = _tuple(call(op, sample, **(others() | leaves)))
    assert {y.dtype for y in outputs} == {wide}
    grads = torch.autograd.grad(outputs, leaves.values(), [torch.ones_like(y) for y in outputs])
    assert [g.dtype for g in grads] == [first, second]
    both = {k: t.to(wide) for k, t in leaves.items()}
    torch.testing.assert_close(outputs, _tuple(call(op, sample, **(others() | both))))


def _tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("device", ["cuda", "cpu", "meta"])
@every_op
def test_autocast_policy(op, device):
    """What torch's dispatcher has for the op: float32 on CUDA for layer, RMS and group norm; none on the CPU."""
    aten = "layer_norm" if op.stem == "layer_norm_2d" else op.stem
    want = device == "cuda" and aten in ("layer_norm", "rms_norm", "group_norm")
    assert _checks._float32_under_autocast(aten, device) == want


@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [True, False])
@every_op
def test_autocast(op, autocast, parameters, monkeypatch):
    """Where torch has the rule, 16-bit input is taken in float32 under autocast, and so are 16-bit parameters."""
    monkeypatch.setattr(_checks, "_float32_under_autocast", lambda *_: True)
    sample = small(op, dtype=torch.bfloat16, parameter_dtype=parameters)
    state = {k: t.float() for k, t in sample.present().items() if k in op.state}  # as the layers keep it
    with torch.autocast("cpu", enabled=autocast):
        y = call(op, sample, **state)
    assert y.dtype == (torch.float32 if autocast else torch.bfloat16)


ROWS = [op for op in NORMS if op.stem in ("layer_norm", "rms_norm")]
MODULES = [
    pytest.param(nk.LayerNorm, torch.nn.LayerNorm, id="layer_norm"),
    pytest.param(nk.RMSNorm, torch.nn.RMSNorm, id="rms_norm"),
]


@pytest.mark.parametrize(("ours", "theirs"), MODULES)
def test_jagged(ours, theirs):
    """A nested tensor of sequences: values and gradients are torch's, and the result adds to the input."""
    parts = [torch.randn(n, 6) for n in (2, 5, 1)]
    results = []
    for module in (ours(6), theirs(6)):
        x = torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)
        y = module(x) + x
        results.append([y.values(), torch.autograd.grad(y.values().square().sum(), x)[0].values()])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)
    y, s = ours(6)(x, x)
    torch.testing.assert_close(s.values(), 2 * x.values())
    torch.testing.assert_close(y.values(), theirs(6)(2 * x).values())


def test_jagged_dims():
    x = torch.nested.nested_tensor([torch.randn(2, 6), torch.randn(3, 6)], layout=torch.jagged)
    with pytest.raises(ValueError, match="layer_norm: input must not be ragged in its last 2 dims"):
        nk.functional.layer_norm(x, (3, 6))
    with pytest.raises(ValueError, match="layer_norm: residual must be a nested tensor of input's shape"):
        nk.functional.layer_norm(x, (6,), residual=x.values())


def test_one_error_for_both_of_torchs():
    for kind in (ValueError, RuntimeError):
        with pytest.raises(kind, match="batch_norm: eps must be positive in training, got 0"):
            nk.functional.batch_norm(torch.randn(4, 3), None, None, training=True, eps=0.0)


@pytest.mark.parametrize("op", [op for op in NORMS if op.added == "skip"], ids=str)
def test_empty_batches_keep_their_layout(op):
    sample = small(op, rows=2, columns=4)
    x = torch.empty(0, 4, 2, 3).contiguous(memory_format=torch.channels_last)
    assert call(op, sample, input=x).stride() == x.stride()
