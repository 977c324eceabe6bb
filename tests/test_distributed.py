"""Statistics of several processes: real ones, started by torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import normkernels as nk

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("program", "world", "checks"),
    [("spanning", 2, 10), ("spanning", 3, 10), ("sharding", 2, 4), ("sharding", 4, 4), ("wrapped", 2, 3)],
)
def test_processes_together_are_as_one(program, world, checks):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    done = subprocess.run(
        [*run, str(ROOT / f"tests/{program}.py")], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{world} processes as one") == checks


def test_one_process_is_a_batch_norm():
    x = torch.randn(4, 6, 3)
    kinds = ("BatchNorm", "BatchRenorm", "OnlineNorm", "StreamingNorm")
    for ours, theirs in ((getattr(nk, f"Sync{kind}")(6), getattr(nk, f"{kind}1d")(6)) for kind in kinds):
        assert torch.equal(ours(x), theirs(x))
        assert ours.state_dict().keys() == theirs.state_dict().keys()
    with pytest.raises(ValueError, match=r"SyncBatchNorm: input must have at least 2 dimensions .*got shape \(3,\)"):
        nk.SyncBatchNorm(3)(torch.ones(3))


def test_synchronize_and_back():
    frozen = nk.BatchNorm2d(6, activation="relu").freeze()
    online, streaming = nk.OnlineNorm1d(6, 0.9, 0.8, stable=True, guard=None), nk.StreamingNorm3d(6, p=1.0, bias=False)
    model = nn.ModuleList([nn.BatchNorm1d(6), frozen, nk.BatchRenorm2d(6), online, streaming, nn.LayerNorm(6)])
    weights, before = list(model.parameters()), [type(m) for m in model]
    report = nk.synchronize_(model)
    assert [type(m) for m in model] == [
        nk.SyncBatchNorm, nk.SyncBatchNorm, nk.SyncBatchRenorm, nk.SyncOnlineNorm, nk.SyncStreamingNorm, nn.LayerNorm
    ]  # fmt: skip
    assert len(report.changed) == 5
    assert (online.alpha_fwd, online.alpha_bkw, online.stable, online.guard) == (0.9, 0.8, True, None)
    assert (streaming.p, streaming.bias) == (1.0, None)
    assert frozen.frozen_statistics
    assert frozen.activation == "relu"
    assert all(p is q for p, q in zip(model.parameters(), weights, strict=True))
    assert not nk.synchronize_(model).changed
    nk.revert(model)
    assert [type(m) for m in model] == before
    with pytest.raises(ValueError, match=r"synchronize_: model must be a torch.nn.Module, got int"):
        nk.synchronize_(3)
