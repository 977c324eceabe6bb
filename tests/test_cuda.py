"""What only a GPU can show: offsets beyond 2^31, CUDA graphs, streams."""

import pytest
import torch
from common import call, every_op, every_op_by_row, need, small
from torch.nn.utils.rnn import pack_padded_sequence

import normkernels as nk
from normkernels.cases import OPS

pytestmark = pytest.mark.cuda
gpu_backends = pytest.mark.parametrize("backend", ["triton", "native"])


@gpu_backends
@every_op_by_row
def test_more_than_2_31_elements(op, backend):
    """The last rows of a tensor beyond 2^31 elements are what they are alone, forward and backward."""
    need(op, backend, "cuda")
    free, _ = torch.cuda.mem_get_info()
    if free < 22e9:
        pytest.skip(f"needs 22 GB of free GPU memory, has {free / 1e9:.0f}")
    rows, columns = 2**31 // 4096 + 3, 4096
    image = op.samples[0].tensors["input"].dim() == 4
    shape = (rows // 256 + 1, 256, 64, 64) if image else (rows, columns)
    sample = op.make(shape, torch.bfloat16, "cuda")
    x, dy = sample.tensors["input"].requires_grad_(), sample.cotangents[0]
    y = call(op, sample, backend)
    (dx,) = torch.autograd.grad(y, x, dy)
    last = x[-2:].detach().clone().requires_grad_()
    alone = call(op, sample, backend, input=last)
    assert torch.equal(y[-2:], alone)
    assert torch.equal(dx[-2:], torch.autograd.grad(alone, last, dy[-2:])[0])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@gpu_backends
def test_batch_norm_of_more_than_2_31_elements(backend, channels_last):
    """The last channels of such an image are what they are alone."""
    op = OPS["batch_norm"]
    need(op, backend, "cuda")
    free, _ = torch.cuda.mem_get_info()
    if free < 30e9:
        pytest.skip(f"needs 30 GB of free GPU memory, has {free / 1e9:.0f}")
    sample = op.make((1, 8200, 512, 512), torch.bfloat16, "cuda", channels_last=channels_last)
    x, w, b = (sample.tensors[k].requires_grad_() for k in ("input", "weight", "bias"))
    dy = sample.cotangents[0]
    y = call(op, sample, backend)
    grads = torch.autograd.grad(y, [x, w, b], dy)
    last = [t.detach().clone().requires_grad_() for t in (x[:, -2:], w[-2:], b[-2:])]
    alone = call(op, sample, backend, input=last[0], weight=last[1], bias=last[2])
    torch.testing.assert_close(y[:, -2:], alone)
    of_alone = torch.autograd.grad(alone, last, dy[:, -2:])
    torch.testing.assert_close([grads[0][:, -2:], grads[1][-2:], grads[2][-2:]], list(of_alone))


@gpu_backends
@every_op
def test_cuda_graph(op, backend):
    """Forward and backward are captured once and replayed on new numbers."""
    need(op, backend, "cuda")
    captured_and_replayed(op, small(op, 300, 257, device="cuda"), backend)


@gpu_backends
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("op", [op for op in OPS.values() if op.kind == "recurrent"], ids=str)
def test_cuda_graph_of_a_sequence(op, packed, backend):
    """The loop over time too."""
    need(op, backend, "cuda")
    captured_and_replayed(op, op.make((9, 33, 65), torch.float32, "cuda", packed=packed), backend)


@gpu_backends
@pytest.mark.parametrize("layer", [nk.LayerNormLSTM, nk.LayerNormGRU, nk.BatchNormRNN, nk.BatchNormLSTM])
def test_cuda_graph_of_a_packed_layer(layer, backend):
    """With states, statistics and both directions."""
    packed = pack_padded_sequence(torch.randn(5, 4, 33, device="cuda"), torch.tensor([5, 5, 3, 2]))
    made = layer(33, 65, bidirectional=True, device="cuda", backend=backend)

    def step():
        y = made(packed)[0].data.clone()
        return y, torch.autograd.grad(y.sum(), [*made.parameters()], allow_unused=True)

    graph, (y, _) = captured(step)
    y.zero_()
    graph.replay()
    assert torch.equal(y, step()[0])


def captured_and_replayed(op, sample, backend):
    x = sample.tensors["input"].requires_grad_()
    leaves = [x, sample.tensors["weight"].requires_grad_()]

    def step():
        y = call(op, sample, backend)
        return y[0] if isinstance(y, tuple) else y, torch.autograd.grad(y, leaves, sample.cotangents)

    graph, (y, grads) = captured(step)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    got = [t.clone() for t in (y, *grads)]
    want_y, want_grads = step()
    assert all(map(torch.equal, got, (want_y, *want_grads)))


def captured(step):
    """A graph of it, after three calls as a warm-up, and what it returns."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    return graph, found


@gpu_backends
@every_op
def test_other_stream(op, backend):
    """Work goes to the current stream: it waits for what was queued there before."""
    need(op, backend, "cuda")
    sample = small(op, 300, 257, device="cuda")
    want = call(op, sample, backend)
    late = torch.empty_like(sample.tensors["input"])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(sample.tensors["input"])
        got = call(op, sample, backend, input=late)
    stream.synchronize()
    assert torch.equal(got, want)
