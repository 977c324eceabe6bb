"""Planes that the CPU kernels take together, those of an image in a call: every way in which one ends."""

import pytest
import torch

from normkernels.backends import unusable
from normkernels.cases import OPS
from normkernels.tolerance import check

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
POSITIONS = (3, 6, 15, 16, 17, 31, 49, 64, 256, 1023)
pytestmark = pytest.mark.skipif(unusable("native", "group_norm_fwd", "cpu") is not None, reason="not built")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_every_end(name, positions, dtype):
    """Nine channels or more, for eight of them are added up together."""
    op = OPS[name]
    for activation, skip in ((None, False), ("relu", True), ("silu", False), ("tanh", True), ("leaky_relu", False)):
        torch.manual_seed(0)
        sample = op.make((3, 18, positions, 1), torch.float32, "cpu", activation=activation, skip=skip)
        wrong = [str(report) for report in check(op, sample, "native", dtype) if report.worst > 1]
        assert not wrong, (activation, skip)


@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_first_value_far_from_the_others(name):
    """The moments of a run are taken about it at first."""
    torch.manual_seed(0)
    sample = OPS[name].make((1, 8, 2000, 1), torch.float32, "cpu")
    sample.tensors["input"][:, :, 0] = 1e4
    assert not [str(report) for report in check(OPS[name], sample, "native", torch.float32) if report.worst > 1]
