"""Both ONNX exporters of torch, over every kind of layer: what onnxruntime computes from the file."""

import copy
import warnings

import pytest
import torch
from layers import every_kind, first

import normkernels as nk

ORDER = 8  # sums are taken in another order there: so many times as far from float64 as the layer itself
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "exported"])
@every_kind
def test_the_file_computes_the_same(layer, dynamo, tmp_path):
    module, x = layer.used(training=False, dtype=torch.float32), layer.input()
    path = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path)
    other = layer.input(seed=3)
    found = session.run(None, {session.get_inputs()[0].name: other.numpy()})[0]
    exact = first(copy.deepcopy(module).double()(other.double())).detach()
    off = (first(module(other)) - exact).abs().max() + torch.finfo(torch.float32).eps * exact.abs().max()
    assert (torch.from_numpy(found) - exact).abs().max() <= ORDER * off


class Fused(torch.nn.Module):
    """A norm with what is added to it."""

    def __init__(self, norm, **added):
        super().__init__()
        self.norm, self.added = norm, added

    def forward(self, x, added):
        return self.norm(x, **dict.fromkeys(self.added, added))


STANDARD = [
    ("LayerNormalization", nk.LayerNorm(6, activation="relu"), "residual", (5, 3, 6)),
    ("LayerNormalization", nk.LayerNorm((3, 6), bias=False, weight_offset=1.0), "residual", (5, 3, 6)),
    ("LayerNormalization", nk.LayerNorm2d(6, activation="tanh"), "residual", (5, 6, 3, 4)),
    ("RMSNormalization", nk.RMSNorm(6, weight_offset=1.0, activation="sigmoid"), "residual", (5, 3, 6)),
    ("BatchNormalization", nk.BatchNorm2d(6, activation="relu"), "skip", (5, 6, 3, 4)),
    ("BatchNormalization", nk.BatchNorm1d(6, affine=False, activation="leaky_relu"), "skip", (5, 6)),
    ("BatchNormalization", nk.BatchRenorm1d(6, activation="relu"), "skip", (5, 6, 3)),
    ("BatchNormalization", nk.StreamingNorm1d(6, activation="relu"), "skip", (5, 6, 3)),
    ("BatchNormalization", nk.InstanceNorm1d(6, affine=True, track_running_stats=True), "skip", (5, 6, 3)),
    ("GroupNormalization", nk.GroupNorm(2, 6, activation="relu"), "skip", (5, 6, 3, 4)),
    ("GroupNormalization", nk.GroupNorm(1, 6, affine=False), "skip", (5, 6, 3)),
    ("InstanceNormalization", nk.InstanceNorm2d(6, affine=True, activation="relu"), "skip", (5, 6, 3, 4)),
    ("InstanceNormalization", nk.InstanceNorm3d(6), "skip", (5, 6, 3, 4, 2)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("added", [False, True], ids=["alone", "added"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("op", "norm", "argument", "shape"), STANDARD)
def test_operators_of_the_standard(op, norm, argument, shape, dtype, added, tmp_path):
    """One of the operator, no other that reduces; any batch; 16-bit input is taken in float32 and rounded once."""
    torch.manual_seed(0)
    norm = copy.deepcopy(norm).eval()
    with torch.no_grad():
        for t in (*norm.parameters(), *(t for name, t in norm.named_buffers() if "num_" not in name)):
            t.add_(torch.rand_like(t))
    model = Fused(norm, **{argument: True} if added else {}).to(dtype)
    x, other = torch.randn(shape).to(dtype), torch.randn(3, *shape[1:]).to(dtype)
    path, batch = tmp_path / "norm.onnx", {0: torch.export.Dim("batch", min=2)}
    torch.onnx.export(
        model, (x, x), path, dynamo=True, verbose=False, opset_version=23, dynamic_shapes=(batch, batch)
    )  # fmt: skip
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert [kind for kind in kinds if "Norm" in kind or "Reduce" in kind] == [op], kinds
    session = runtime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, {name: other.numpy() for name in names})
    wanted = model(other, other)
    with nk.use_backend("reference"):
        exact = copy.deepcopy(model).double()(other.double(), other.double())
    for y, want, right in zip(found, *((t if isinstance(t, tuple) else (t,)) for t in (wanted, exact)), strict=True):
        off = (want - right).abs().max() + torch.finfo(dtype).eps * right.abs().max()
        assert (torch.from_numpy(y) - right).abs().max() <= ORDER * off
