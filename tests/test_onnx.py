"""Both ONNX exporters of torch, over every layer: what onnxruntime computes from the file."""

import warnings

import pytest
import torch
from layers import every_layer, first

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "exported"])
@every_layer
def test_the_file_computes_the_same(layer, dynamo, tmp_path):
    module, x = layer.used(training=False, dtype=torch.float32), layer.input()
    path = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path)
    other = layer.input(seed=3)
    found = session.run(None, {session.get_inputs()[0].name: other.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), first(module(other)).detach(), rtol=1e-3, atol=1e-3)
