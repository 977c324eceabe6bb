"""Both ONNX exporters of torch, over every kind of layer: what onnxruntime computes from the file."""

import copy
import warnings

import pytest
import torch
from layers import every_kind, first

ORDER = 8  # sums are taken in another order there: so many times as far from float64 as the layer itself
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


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
