"""The ops as torch sees them: opcheck, torch.compile, torch.export, meta and fake tensors, the native schemas."""

import pytest
import torch
from aot_graphs import OURS, Graphs
from common import Recorder, every_channel_op, every_op, kernels, leaves, small
from torch._subclasses.fake_tensor import FakeTensorMode

import normkernels as nk
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.ops import _ways
from normkernels.tolerance import run

INLINED = ("layer_norm", "layer_norm_2d", "rms_norm", "batch_norm", "group_norm", "instance_norm")
WEIGHTED = [op for op in OPS.values() if op.kind != "norm"]


def calls(op, **extras):
    """The op calls that a forward and backward makes."""
    sample = small(op, **extras)
    with Recorder() as recorder:
        run(op, sample.call, sample.present(), list(sample.cotangents), None)
    return recorder.calls


@every_op
def test_opcheck(op):
    """Schema, fake and aot_dispatch agree with what the op does, with and without its optional tensors."""
    sample = small(op)
    bare = {k: v for k, v in sample.present().items() if k == "input" or k in op.state}
    with Recorder() as recorder:
        run(op, sample.call, bare, list(sample.cotangents), None)
    recorded = recorder.calls + calls(op, added=True, activation="gelu", parameter_dtype=torch.float32)
    assert len({name for name, _ in recorded}) == 2
    for kernel, args in recorded:
        torch.library.opcheck(kernel, args)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@every_op
def test_compile(op, dynamic, monkeypatch):
    """One graph, the bits of eager, forward and backward; with dynamic shapes one graph for all batch sizes.

    Of the ops: what Inductor computes instead of the small rounds as it likes, and is in tests/test_inlined.py.
    """
    monkeypatch.setattr(_ways, "_inductors", lambda *_: False)

    def function(tensors, arguments):
        y = op.function(**tensors, **arguments)
        return y if isinstance(y, tuple) else (y,)

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    for i, rows in enumerate((5, 6, 7) if dynamic else (5,)):
        sample = small(op, rows, added=True, activation="silu")
        arguments = {k: v for k, v in sample.call.items() if k != "activation"} | {"activation": "silu"}
        results, states = [], []
        with torch._dynamo.config.patch(error_on_recompile=dynamic and i > 0):
            for f in (function, compiled):
                named, state = leaves(op, sample), {k: t.clone() for k, t in sample.present().items() if k in op.state}
                outputs = f(named | state, arguments)
                grads = torch.autograd.grad(outputs, list(named.values()), sample.cotangents)
                results.append([*outputs, *grads])
                states.append(state)
        assert all(map(torch.equal, *results))
        torch.testing.assert_close(*states)  # inductor may fuse a multiplication and an addition into one rounding


@every_op
def test_compile_without_what_is_optional(op, monkeypatch):
    """With the input alone, gradients too: what is absent must not be an output of the graph of ops."""
    monkeypatch.setattr(_ways, "_inductors", lambda *_: False)
    torch._dynamo.reset()
    sample = small(op)
    bare = {k: t for k, t in sample.present().items() if k == "input" or k in op.state}
    found = []
    for compiled in (True, False):
        x = sample.tensors["input"].detach().requires_grad_()
        inputs = {k: t.clone() for k, t in bare.items()} | {"input": x}
        function = torch.compile(op.function, fullgraph=True, backend="aot_eager") if compiled else op.function
        y = function(**inputs, **sample.call)
        found.append([y, *torch.autograd.grad(y, x, sample.cotangents[0])])
    assert all(map(torch.equal, *found))


@every_op
def test_compile_sees_use_backend(op):
    """A compiled function follows use_backend, as eager code does: the native ops themselves, or none of ours.

    Without a request and without gradients it may be ordinary ops, as tests/test_inlined.py has it.
    """
    graphs = Graphs()

    def compiled(t):
        return torch.compile(lambda t: op.function(**t, **sample.call), fullgraph=True, backend=graphs)(t)

    torch._dynamo.reset()
    sample = small(op)
    for name in (None, "reference", "native"):
        with torch.no_grad(), nk.use_backend(name):
            compiled(sample.present())
    used = [found & OURS for found in graphs.namespaces]
    automatic = set() if op.stem in INLINED else {"normkernels_C"}
    assert used == [automatic, set(), {"normkernels_C"}]


@every_op
def test_export(op):
    """The exported program computes the same, and moves a state that it is given in the same way."""
    sample = small(op, added=True, activation="gelu")

    class Model(torch.nn.Module):
        def forward(self, tensors):
            y = op.function(**tensors, **sample.call)
            return y if isinstance(y, tuple) else (y,)

    tensors, twin = ({k: t.clone() for k, t in sample.present().items()} for _ in range(2))
    exported = torch.export.export(Model(), (sample.present(),))
    assert all(map(torch.equal, exported.module()(tensors), Model()(twin)))
    assert all(map(torch.equal, tensors.values(), twin.values()))


def layouts(op, sample):
    """Shape, dtype and strides of every output and gradient."""
    results = run(op, sample.call, sample.present(), list(sample.cotangents), None)
    return {k: (tuple(t.shape), t.dtype, t.stride()) for k, t in results.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_op
def test_meta_and_fake_tensors(op, dtype):
    """Both tell shape, dtype and strides of every result without computing it."""
    extras = {"dtype": dtype, "parameter_dtype": torch.float32, "added": True}
    want = layouts(op, small(op, **extras))
    assert layouts(op, small(op, device="meta", **extras)) == want
    with FakeTensorMode():
        assert layouts(op, small(op, **extras)) == want


@pytest.mark.parametrize("device", ["cpu", "meta"])
@every_channel_op
def test_channels_last_fake_tensors(op, device):
    """The layout that fake tensors promise is the one that comes, for an input in either layout."""
    for last in (True, False):
        sample = small(op, added=True, channels_last=last)
        with FakeTensorMode():
            promised = layouts(op, small(op, added=True, channels_last=last))
        assert promised == layouts(op, small(op, device=device, added=True, channels_last=last))
        assert promised["output 0"][2] == sample.tensors["input"].stride()


@pytest.mark.parametrize("op", WEIGHTED, ids=str)
def test_opcheck_of_weights(op):
    """The same for functions of weights, in 16 bits beside float32 too."""
    for dtype in (torch.float32, torch.bfloat16):
        sample = op.make((4, 5), dtype, parameter_dtype=torch.float32)
        with Recorder() as recorder:
            run(op, sample.call, sample.present(), list(sample.cotangents), None)
        assert {name._opname for name, _ in recorder.calls} >= set(kernels(op))
        for kernel, args in recorder.calls:
            torch.library.opcheck(kernel, args)


@pytest.mark.parametrize("op", OPS.values(), ids=str)
def test_native_schema(op):
    """normkernels_C's schemas are those of normkernels, without the backend."""
    for name in kernels(op):
        reason = unusable("native", name, "cpu")
        if reason:
            pytest.skip(reason)
        ours, theirs = (
            str(getattr(space, name).default._schema) for space in (torch.ops.normkernels, torch.ops.normkernels_C)
        )
        assert ours.replace(", str? backend", "") == theirs.replace("normkernels_C::", "normkernels::")
