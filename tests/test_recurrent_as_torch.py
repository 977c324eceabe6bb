"""Recurrent layers and cells behave as torch.nn's, and take their weights."""

import copy
import pickle

import pytest
import torch
from recurrent_layers import CELLS, LAYERS, close, every_layer, states
from torch import nn
from torch.utils._pytree import tree_leaves

pytestmark = pytest.mark.usefixtures("seeded")


def twin(layer):
    """torch.nn's layer."""
    return getattr(nn, layer.__name__.removeprefix("LayerNorm").removeprefix("BatchNorm"))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("layer", [*LAYERS, *CELLS.values()], ids=lambda c: c.__name__)
def test_torchs_weights_are_assigned(layer, device, dtype, nested):
    """Nothing stays on meta, or in another dtype: the norms have the first values, on the CPU those that they had."""
    theirs, ours, other = twin(layer)(4, 3, dtype=dtype), layer(4, 3, device=device), layer(4, 3, dtype=dtype)
    if device == "cpu":
        for m in (ours, other):
            with torch.no_grad():
                for name, p in m.named_parameters():
                    if name.startswith("norm_"):
                        p.fill_(0.5)
    a, b = (nn.Sequential(m) if nested else m for m in (ours, theirs))
    a.load_state_dict(b.state_dict(), assign=True)
    other.load_state_dict(theirs.state_dict())
    for (name, t), want in zip(ours.state_dict().items(), other.state_dict().values(), strict=True):
        assert (t.device, t.dtype) == (want.device, want.dtype), name
        assert torch.equal(t, want), name
    assert all(p.requires_grad for p in ours.parameters())
    x = torch.randn((6, 4) if "Cell" in layer.__name__ else (5, 6, 4), dtype=dtype)
    found, wanted = (tree_leaves(m(x)) for m in (ours, other))
    assert all(map(torch.equal, found, wanted))


@every_layer
def test_as_torch(layer):
    """Shapes, names, layouts and states are torch.nn's; its weights load, and what is wrong with them is still said."""
    arguments = (3, 4, 2), {"bidirectional": True, "batch_first": True, "dropout": 0.5}
    ours, theirs = layer(*arguments[0], **arguments[1]), twin(layer)(*arguments[0], **arguments[1])
    assert set(theirs.state_dict()) < set(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for name, p in theirs.named_parameters():
        assert torch.equal(p, ours.get_parameter(name)), name
    with pytest.raises(RuntimeError, match="weight_hh_l0"):
        ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k != "weight_hh_l0"})
    with pytest.raises(RuntimeError, match="Missing"):
        ours.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("norm_weight_ih_l1")}
                             if hasattr(ours, "norm_weight_ih_l1") else
                             {k: v for k, v in ours.state_dict().items() if k != "norm_weight_l1"})  # fmt: skip
    x = torch.randn(5, 6, 3)
    found, wanted = ours(x), theirs(x)
    assert found[0].shape == wanted[0].shape
    assert [s.shape for s in states(found[1])] == [s.shape for s in states(wanted[1])]
    ours.eval()
    single, last = ours(x[0])
    close(single, ours(x[:1])[0][0], 1e-6)
    assert states(last)[0].shape == (4, 4)
    assert torch.equal(ours(x)[0], ours(x)[0])  # dropout is off
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again(x)[0], ours(x)[0])
    assert ours.double()(x.double())[0].dtype == torch.float64
    assert layer.__name__ in repr(ours)
    without = layer(3, 4, bias=False)
    assert not [name for name, _ in without.named_parameters() if "bias" in name]
    assert without(x.transpose(0, 1))[0].shape == (6, 5, 4)


@every_layer
def test_dropout_between_layers(layer):
    """All of the second layer's input is dropped."""
    ours = layer(3, 4, 2, dropout=1.0)
    for p in ours.parameters():
        nn.init.normal_(p)
    x = torch.randn(5, 6, 3)
    y = ours(x)[0]
    close(y, ours(torch.randn(5, 6, 3))[0])
    assert y.any()  # and nothing of the last one's output


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.__name__)
def test_cells(cell):
    ours, theirs = cell(3, 4), getattr(nn, cell.__name__.removeprefix("LayerNorm"))(3, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3)
    h = ours(x)
    assert [s.shape for s in states(h)] == [s.shape for s in states(theirs(x))]
    first = tuple(s[0] for s in states(h))
    alone = ours(x[0], first if len(first) == 2 else first[0])
    close(states(alone)[0], states(ours(x, h))[0][0], 1e-6)
    with pytest.raises(ValueError, match=f"{cell.__name__}: Expected input to be 1D or 2D"):
        ours(torch.randn(1, 2, 3))
