"""What recurrent layers and functions refuse, and how they say it."""

from functools import partial

import pytest
import torch
from recurrent_layers import every_layer, every_recurrent, states
from torch.nn.utils.rnn import pack_padded_sequence

import normkernels as nk
from normkernels import functional as F
from normkernels.cases._recurrent import sample

pytestmark = pytest.mark.usefixtures("seeded")


class TestErrors:
    """torch's errors, or better ones; nothing is changed by a call that fails."""

    @every_layer
    def test_inputs(self, layer):
        ours, x = layer(3, 4, 2), torch.randn(5, 6, 3)
        before = {k: t.clone() for k, t in ours.state_dict().items()}
        h = torch.randn(2, 6, 4)
        hx = (h, h) if isinstance(ours, nk.LayerNormLSTM | nk.BatchNormLSTM) else h
        wrong = tuple(s[:, :5] for s in states(hx))
        wrong = wrong if len(wrong) == 2 else wrong[0]
        name = layer.__name__
        for error, message, arguments in [
            (ValueError, f"{name}: Expected input to be 2D or 3D, got 4D instead", (x[None],)),
            (RuntimeError, "input.size\\(-1\\) must be equal to input_size. Expected 3, got 2", (x[..., :2],)),
            (ValueError, "input dtype .* does not match weight dtype", (x.double(),)),
            (RuntimeError, f"{name}: Expected h_0 size \\(2, 6, 4\\), got \\[2, 5, 4\\]", (x, wrong)),
            (RuntimeError, f"{name}: for 2-D input, the states should also be 2-D", (x[:, 0], hx)),
            (ValueError, "input must have at least one step", (x[:0],)),
        ]:
            with pytest.raises(error, match=message):
                ours(*arguments)
        with pytest.raises(RuntimeError, match="enforce_sorted"):
            pack_padded_sequence(x, [1, 2, 3, 4, 5, 5])
        assert all(map(torch.equal, before.values(), ours.state_dict().values()))

    @every_layer
    def test_arguments(self, layer):
        for wrong, rule in [
            ({"norm_terms": "both"}, "norm_terms must be 'separate' or 'sum', got 'both'"),
            ({"backend": "cuda"}, "backend must be one of"),
        ]:
            with pytest.raises(ValueError, match=f"{layer.__name__}: {rule}"):
                layer(3, 4, **wrong)

    def test_switches(self):
        for make, message in [
            (partial(nk.LayerNormLSTM, norm_over="rz"), "LayerNormLSTM: norm_over must be one of 'joint', 'gate'"),
            (
                partial(nk.LayerNormLSTM, norm_cell="yes"),
                "LayerNormLSTM: norm_cell must be None, 'output' or 'carried'",
            ),
            (partial(nk.LayerNormRNN, nonlinearity="gelu"), "LayerNormRNN: nonlinearity must be 'tanh' or 'relu'"),
            (partial(nk.BatchNormRNN, max_steps=0), "BatchNormRNN: max_steps must be a positive int, got 0"),
        ]:
            with pytest.raises(ValueError, match=message):
                make(3, 4)

    @every_recurrent
    def test_functions(self, op):
        s = sample(op.stem, "errors", 3, 4, 6)
        gates = s.tensors["input"].shape[-1] // 6
        x, w = s.tensors["input"], s.tensors["weight_hh"]
        packed = {"input": x.flatten(0, 1)}
        for change, rule in [
            ({"input": x[0]}, "input must have shape \\(T, B"),
            ({"input": x[:0]}, "input must have at least one step"),
            ({"input": x.long()}, "input must be float64, float32"),
            ({"weight_hh": w[1:]}, f"weight_hh must have shape \\({gates} \\* hidden_size, hidden_size\\)"),
            ({"weight_hh": w.float()}, "weight_hh must have input's dtype"),
            ({"weight": torch.ones(5).double()}, "weight must have shape"),
            ({"h_0": torch.zeros(3, 6).double()}, "h_0 must have shape \\(4, 6\\), got \\(3, 6\\)"),
            ({"h_0": torch.zeros(4, 6)}, "h_0 must have input's dtype"),
            (packed | {"batch_sizes": torch.tensor([4, 5, 3])}, "batch_sizes must be .* not increasing, got"),
            (packed | {"batch_sizes": torch.tensor([4, 4, 3])}, "batch_sizes must sum up to the rows of input, 12"),
            (packed | {"batch_sizes": [4, 4, 4]}, "batch_sizes must be None or an int64 tensor on the CPU"),
        ]:
            with pytest.raises(ValueError, match=f"{op.stem}: {rule}"):
                op.function(**(s.present() | s.call | change))

    def test_one_row_has_no_batch_statistics(self):
        for layer in (nk.BatchNormRNN, nk.BatchNormLSTM):
            ours = layer(3, 4)
            before = {k: t.clone() for k, t in ours.state_dict().items()}
            packed = pack_padded_sequence(torch.randn(5, 3, 3), [5, 4, 4])
            for x in (torch.randn(5, 1, 3), packed):
                with pytest.raises(ValueError, match="more than one row in every step in training"):
                    ours(x)
            assert all(map(torch.equal, before.values(), ours.state_dict().values()))
            ours.eval()(packed)
        x, w = torch.randn(3, 1, 4), torch.randn(4, 4)
        with pytest.raises(ValueError, match="batch_norm_rnn: input must have more than one row"):
            F.batch_norm_rnn(x, w, None, None, training=True)
