"""A compiled layer takes another number of samples without a graph break and without another compilation."""

import torch
from layers import Layer, every_kind, output
from torch._dynamo.testing import CompileCounter

SEQUENCES = ("RNN", "LSTM", "GRU")  # (T, N, *)


@every_kind
def test_another_batch_size_is_no_compilation(layer: Layer):
    """Below 16 samples: torch chooses another way for a convolution from there on, and compiles its own Conv1d anew."""
    torch._dynamo.reset()
    module, counter = layer.used(dtype=torch.float32), CompileCounter()
    compiled, dim = torch.compile(module, backend=counter, fullgraph=True), int(layer.name.endswith(SEQUENCES))
    x = layer.input()
    for more in (0, 1, 3):
        batch = torch.cat([x, *[x.narrow(dim, 0, 1)] * more], dim)
        torch._dynamo.mark_dynamic(batch, dim)
        assert output(compiled, batch).shape[dim] == x.shape[dim] + more
    assert counter.frame_count == 1
