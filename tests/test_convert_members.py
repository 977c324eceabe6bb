"""Batch norms that nk.convert makes members of the family without a batch."""

import copy

import pytest
import torch
from torch import nn

import normkernels as nk
from tests.test_convert import used

SHAPES = {1: (8, 6), 2: (8, 6, 4, 5), 3: (8, 6, 2, 3, 3)}
BECOMES = {
    "batch_renorm": nk.BatchRenorm2d, "online": nk.OnlineNorm2d, "streaming": nk.StreamingNorm2d,
    "group": nk.GroupNorm, "layer": nk.GroupNorm, "instance": nk.InstanceNorm2d,
}  # fmt: skip


@pytest.mark.parametrize("to", BECOMES)
def test_batch_norms_become_a_member_without_a_batch(to):
    torch.manual_seed(0)
    model = nn.Sequential(used(nn.BatchNorm2d(6)), nn.ReLU())
    weight, before, x = model[0].weight, copy.deepcopy(model).eval(), torch.randn(SHAPES[2])
    nk.convert(model, to=to)
    assert type(model[0]) is BECOMES[to]
    assert model[0].activation == "relu"
    assert model[0].weight is weight
    if to == "online":
        assert torch.equal(model[0].running_var, before[0].running_var)
    elif to in ("batch_renorm", "streaming"):
        torch.testing.assert_close(model.eval()(x), before(x), rtol=1e-4, atol=1e-4)
    else:
        assert model[0].weight.shape == (6,)
        assert getattr(model[0], "num_groups", 1) == (6 if to == "group" else 1)
    model.train()(x[:1]).sum().backward()
    nk.revert(model)
    assert list(model.state_dict()) == list(before.state_dict())
    assert type(model[0]) is nn.BatchNorm2d
    model.eval()(x)


@pytest.mark.parametrize("rank", SHAPES)
def test_every_rank_becomes_one(rank):
    for to in BECOMES:
        model = nn.Sequential(getattr(nn, f"BatchNorm{rank}d")(6, affine=False, track_running_stats=False))
        report = nk.convert(model, to=to)
        if to == "instance" and rank == 1:
            assert "a value alone" in report.left[0].text
        else:
            assert model(torch.randn(SHAPES[rank])).shape == SHAPES[rank]


def test_ours_and_frozen_ones():
    model = nn.Sequential(nk.BatchNorm2d(64, activation="silu"), nk.BatchNorm2d(6).freeze())
    report = nk.convert(model, to="group")
    assert model[0].num_groups == 32
    assert model[0].activation == "silu"
    assert [n.text for n in report.left] == ["its statistics are frozen"]
    assert type(model[1]) is nk.BatchNorm2d
