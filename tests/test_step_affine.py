"""Batch-normalised recurrent layers with a gain and a bias of each step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import every_target, need
from recurrent_layers import close, states
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import normkernels as nk
from normkernels.cases import OPS

pytestmark = pytest.mark.usefixtures("seeded")
FORMS = [(nk.BatchNormRNN, {}), (nk.BatchNormRNN, {"norm_terms": "sum", "nonlinearity": "relu"}),
         (nk.BatchNormLSTM, {}), (nk.BatchNormLSTM, {"norm_terms": "sum", "norm_cell": "carried"}),
         (nk.BatchNormLSTM, {"norm_cell": None})]  # fmt: skip
every_form = pytest.mark.parametrize(
    ("layer", "switches"), FORMS, ids=["-".join([c.__name__, *map(str, s.values())]) for c, s in FORMS]
)


def made(layer, switches, dtype=torch.float64, **others):
    """With random parameters of three slots."""
    ours = layer(3, 4, max_steps=3, per_step_affine=True, dtype=dtype, **(switches | others))
    for p in ours.parameters():
        nn.init.normal_(p)
    return ours


def by_hand(ours, x, suffix="_l0", reverse=False):
    """Every step of one direction in training, x: (T, B, 3): y and the last states."""
    own = {k.removesuffix(suffix): p for k, p in ours.named_parameters() if k.endswith(suffix)}
    zero = x.new_zeros(x.shape[1], 4)
    h, c, ys = zero, zero, {}
    for k in range(len(x)):
        slot, t = min(k, 2), len(x) - 1 - k if reverse else k

        def norm(a, name, slot=slot):
            return F.batch_norm(a, None, None, own[f"norm_weight{name}"][slot], training=True, eps=1e-5)

        p, a = x[t] @ own["weight_ih"].T, h @ own["weight_hh"].T
        z = norm(p, "_ih") + norm(a, "_hh") if ours.norm_terms == "separate" else norm(p + a, "")
        z = z + own["bias_ih"] + own["bias_hh"] + own["norm_bias"][slot]
        if isinstance(ours, nk.BatchNormRNN):
            h = z.tanh() if ours.nonlinearity == "tanh" else z.relu()
        else:
            i, f, g, o = z.chunk(4, 1)
            c = normed = f.sigmoid() * c + i.sigmoid() * g.tanh()
            if ours.norm_cell:
                normed = norm(c, "_cell") + own["norm_bias_cell"][slot]
            c = normed if ours.norm_cell == "carried" else c
            h = o.sigmoid() * normed.tanh()
        ys[t] = h
    return torch.stack([ys[t] for t in range(len(x))]), (h, c)


@every_form
@every_target
def test_by_hand(backend, device, layer, switches):
    """Both directions in training, longer than there are slots, with every gradient."""
    need(OPS[f"batch_norm_{layer.__name__.removeprefix('BatchNorm').lower()}"], backend, device)
    ours = made(layer, switches, bidirectional=True, backend=backend).to(device)
    x = torch.randn(5, 6, 3, dtype=torch.float64, device=device, requires_grad=True)
    y, hx = ours(x)
    forth, back = by_hand(ours, x), by_hand(ours, x, "_l0_reverse", reverse=True)
    want = torch.cat([forth[0], back[0]], -1)
    close(y, want)
    close(states(hx)[-1], torch.stack([forth[1][len(states(hx)) - 1], back[1][len(states(hx)) - 1]]))
    parameters = [x, *ours.parameters()]
    close(*(torch.autograd.grad(out, parameters, torch.cos(want.detach()), retain_graph=True) for out in (y, want)))


@every_form
def test_equal_steps_are_one_gain(layer, switches):
    """With the same parameters in every slot it is the layer without, with its statistics, packed and in eval() too."""
    ours, plain = made(layer, switches), layer(3, 4, max_steps=3, dtype=torch.float64, **switches)
    with torch.no_grad():
        for name, p in plain.named_parameters():
            mine = ours.get_parameter(name)
            mine.copy_(mine[:1].expand_as(mine) if name.startswith("norm_") else mine)
            p.copy_(mine[0] if name.startswith("norm_") else mine)
        ours.norm_bias_l0.fill_(0.5)
        plain.bias_hh_l0.add_(0.5)
    packed = pack_padded_sequence(torch.randn(6, 5, 3, dtype=torch.float64), [6, 5, 5, 4, 3], enforce_sorted=False)
    packed = packed._replace(data=packed.data[:-1], batch_sizes=packed.batch_sizes[:-1])  # no step of one row
    for _ in range(2):
        close(ours(packed)[0].data, plain(packed)[0].data)
    buffers = dict(plain.named_buffers())
    assert set(buffers) == {k for k, _ in ours.named_buffers()}
    for name, buffer in ours.named_buffers():
        close(buffer, buffers[name])
    close(ours.eval()(packed)[0].data, plain.eval()(packed)[0].data)


@every_form
def test_packed(layer, switches):
    """In eval() every row is what it is alone; on the way back with the slots of its later start."""
    ours = made(layer, switches, bidirectional=True)
    ours(torch.randn(5, 6, 3, dtype=torch.float64))
    x, lengths = torch.randn(6, 4, 3, dtype=torch.float64), [3, 6, 2, 5]
    y, _ = pad_packed_sequence(ours.eval()(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])
    for i, n in enumerate(lengths):
        alone, later = copy.deepcopy(ours), (torch.arange(3) + 6 - n).clamp(max=2)
        with torch.no_grad():
            for name, t in alone.state_dict().items():
                if name.startswith(("norm_", "running_")) and name.endswith("_reverse"):
                    t.copy_(t[later])
        close(y[:n, i], alone(x[:n, i])[0])


def test_steps_that_no_batch_has_reached():
    """In eval() they have parameters and statistics of the last step that was reached; in training their own."""
    ours = made(nk.BatchNormRNN, {})
    ours(torch.randn(2, 6, 3, dtype=torch.float64))
    cut = copy.deepcopy(ours).eval()
    with torch.no_grad():
        for p in (cut.norm_weight_ih_l0, cut.norm_weight_hh_l0, cut.norm_bias_l0):
            p[2] = p[1]
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    assert torch.equal(ours.eval()(x)[0], cut(x)[0])
    close(ours.train()(x)[0], by_hand(ours, x)[0])


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training):
    ours = made(nk.BatchNormLSTM, {}, track_running_stats=not training)
    names, x = [name for name, _ in ours.named_parameters()], torch.randn(4, 3, 3, dtype=torch.float64)
    ours(x)
    ours.train(training)

    def of(x, *parameters):
        return torch.func.functional_call(ours, dict(zip(names, parameters, strict=True)), (x,))[0]

    assert torch.autograd.gradcheck(of, (x.requires_grad_(), *ours.parameters()))


def test_keys_and_errors():
    """Shapes of the parameters, first values, torch's weights, and what is refused."""
    ours = nk.BatchNormLSTM(3, 4, max_steps=7, per_step_affine=True)
    shapes = {k: tuple(p.shape) for k, p in ours.named_parameters() if k.startswith("norm_")}
    wide, cell = (7, 16), (7, 4)
    assert shapes == {"norm_weight_ih_l0": wide, "norm_weight_hh_l0": wide, "norm_weight_cell_l0": cell,
                      "norm_bias_cell_l0": cell, "norm_bias_l0": wide}  # fmt: skip
    assert (ours.norm_weight_ih_l0 == 0.1).all()
    assert not ours.norm_bias_l0.any()
    ours.load_state_dict(nn.LSTM(3, 4).state_dict())
    assert "per_step_affine=True" in repr(ours)
    assert not hasattr(nk.BatchNormRNN(3, 4, bias=False, per_step_affine=True), "norm_bias_l0")
    with pytest.raises(ValueError, match="BatchNormRNN: per_step_affine must be True or False, got 'yes'"):
        nk.BatchNormRNN(3, 4, per_step_affine="yes")
    with pytest.raises(RuntimeError, match="size mismatch for norm_weight_ih_l0"):
        ours.load_state_dict(nk.BatchNormLSTM(3, 4).state_dict() | {"norm_bias_l0": torch.zeros(7, 16)})
