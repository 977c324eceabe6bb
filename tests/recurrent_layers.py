"""Recurrent layers, their cells and torch's, for the tests of them."""

import pytest
import torch

import normkernels as nk
from normkernels.cases import OPS

RECURRENT = [op for op in OPS.values() if op.kind == "recurrent"]
LAYERS = [nk.LayerNormRNN, nk.LayerNormLSTM, nk.LayerNormGRU, nk.BatchNormRNN, nk.BatchNormLSTM]
CELLS = {nk.LayerNormRNN: nk.LayerNormRNNCell, nk.LayerNormLSTM: nk.LayerNormLSTMCell,
         nk.LayerNormGRU: nk.LayerNormGRUCell}  # fmt: skip
every_recurrent = pytest.mark.parametrize("op", RECURRENT, ids=str)
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)


def states(hx):
    return hx if isinstance(hx, tuple) else (hx,)


def close(got, want, rtol=1e-9):
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)
