"""Rows of different lengths are what each is alone, and nothing of them is copied to the device."""

import warnings

import pytest
import torch
from recurrent_layers import close, every_layer, states
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import normkernels as nk

pytestmark = pytest.mark.usefixtures("seeded")


class Copies(TorchDispatchMode):
    """Lists what takes a tensor from one device to another, but for our own ops, which read batch_sizes on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.dim() > 0]
        if func.namespace != "normkernels" and len({t.device for t in tensors}) > 1:
            self.found.append(str(func))
        return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_terms", ["separate", "sum"])
@every_layer
def test_packed_sequences_copy_nothing_to_the_device(layer, norm_terms, training):
    """A copy from the host waits for the device, and a CUDA graph cannot capture it; meta stands for any device."""
    made = layer(6, 5, bidirectional=True, norm_terms=norm_terms, device="meta").train(training)
    x = torch.randn(5, 4, 6, device="meta", requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor([5, 5, 3, 2]))
    with Copies() as copies, warnings.catch_warnings(action="ignore"):
        made(packed)[0].data.sum().backward()
    assert copies.found == []


@every_layer
def test_packed_sequences(layer):
    """Rows of different lengths, in any order, are what each is alone; batch norm shares statistics, so in eval."""
    ours = layer(3, 4, 2, bidirectional=True, batch_first=True, dtype=torch.float64).eval()
    x, lengths = torch.randn(4, 6, 3, dtype=torch.float64), [3, 6, 2, 3]
    first = torch.randn(4, 4, 4, dtype=torch.float64)
    hx = (first, first.flip(0)) if layer in (nk.LayerNormLSTM, nk.BatchNormLSTM) else first
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = ours(packed, hx)
    y, found = pad_packed_sequence(y, batch_first=True)
    assert found.tolist() == lengths
    for i, n in enumerate(lengths):
        alone = tuple(s[:, i : i + 1].contiguous() for s in states(hx))
        want, h = ours(x[i : i + 1, :n], alone if len(alone) == 2 else alone[0])
        close(y[i, :n], want[0])
        assert not y[i, n:].any()
        for got, of_row in zip(states(last), states(h), strict=True):
            close(got[:, i], of_row[:, 0])
