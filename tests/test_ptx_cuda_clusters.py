"""Clusters of blocks that hold a statistic of CUDA's channels: their host code launches their PTX, without a GPU."""

import random
import re

import pytest

pytest.importorskip("numpy")

import torch

from normkernels.cases import OPS, batch_norm, batch_renorm, group_norm, instance_norm
from normkernels.functional import group_norm as normalised
from normkernels.tolerance import check
from tests.ptx import build
from tests.ptx.cuda import SMALL, running
from tests.ptx.memory import PTXError

pytestmark = pytest.mark.skipif(build.nvcc() is None, reason="needs nvcc")
STEMS = ("batch_norm", "group_norm", "instance_norm", "batch_renorm")
ALL = ("skip", "weight", "bias")
OLDER = SMALL._replace(capability=8)
batch, group, instance, renorm = (m.NORM for m in (batch_norm, group_norm, instance_norm, batch_renorm))
# blocks with packs of several images, of several channels, and with none; channels that end within a pack (forward)
SAMPLES = {
    "batch_norm": [
        batch.sample("3x1x80x88", batch.x(3, 1, 80, 88), ALL, activation="relu"),
        batch.sample("2x2x104x104", batch.x(2, 2, 104, 104)),
    ],
    "group_norm": [
        group.sample("2x7x60x56", group.x(2, 7, 60, 56, groups=1), num_groups=1),
        group.sample("1x10x80x72", group.x(1, 10, 80, 72, groups=1), ALL, num_groups=1, activation="silu"),
        group.sample("1x6x61x60", group.x(1, 6, 61, 60, groups=1), num_groups=1),
        group.sample(
            "1x2x120x140-gated", group.x(1, 2, 120, 140, groups=1), num_groups=1, activation="silu", gated=True
        ),
    ],
    "instance_norm": [
        instance.sample("2x1x130x132", instance.x(2, 1, 130, 132), ("weight",)),
        instance.sample("1x1x136x136", instance.x(1, 1, 136, 136), ()),
    ],
    "batch_renorm": [
        renorm.sample("3x2x80x88", renorm.x(3, 2, 80, 88), ALL, activation="relu", r_max=1.2, d_max=0.3),
        renorm.sample("2x1x104x104", renorm.x(2, 1, 104, 104)),
    ],
}
MOST = {"batch_norm": 2, "batch_renorm": 4}  # launches, forward and backward; a rule lies between batch renorm's
EACH = [pytest.param(op, sample, id=f"{op}-{sample}") for op, samples in SAMPLES.items() for sample in samples]


def clustered(launched) -> list[bool]:
    return [max(one.cluster) > 1 for one in launched]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("op", "sample"), EACH)
def test_clusters_are_within_their_tolerance(op, sample, dtype):
    """One launch forward and one backward; a second one where blocks or images share the gradient of a parameter."""
    with running(STEMS, random.Random(0)) as launched:
        reports = check(OPS[op], sample, "native", dtype)
    assert not [str(r) for r in reports if r.worst > 1]
    assert clustered(launched)[0]
    assert len(launched) <= MOST.get(op, 3) or "61" in sample.id


def test_a_device_without_clusters_takes_sweeps():
    sample = SAMPLES["batch_norm"][0]
    with running(STEMS, device=OLDER) as launched:
        reports = check(OPS["batch_norm"], sample, "native", torch.float32)
    assert not [str(r) for r in reports if r.worst > 1]
    assert len(launched) > 2
    assert not any(clustered(launched))


def gradients(x: torch.Tensor, dy: torch.Tensor, edit=str, order: random.Random | None = None) -> list[torch.Tensor]:
    """y, dx and dweight of groups of three channels, each a cluster's."""
    given, weight = x.clone().requires_grad_(), torch.linspace(1, 2, x.shape[1]).requires_grad_()
    with running(STEMS, order, edit) as launched:
        y = normalised(given, x.shape[1] // 3, weight, backend="native")
        found = [y.detach(), *torch.autograd.grad(y, (given, weight), dy)]
    assert clustered(launched)[:2] == [True, True]
    return found


X, DY = torch.randn(2, 2, 6, 56, 56, generator=torch.Generator().manual_seed(0))


def test_an_image_alone_has_the_bits_that_it_has_among_others():
    """In any order of warps."""
    whole = gradients(X, DY)
    for i in range(2):
        alone = gradients(X[i : i + 1], DY[i : i + 1], order=random.Random(i))
        assert all(torch.equal(one[0], of_all[i]) for one, of_all in zip(alone[:2], whole, strict=False))


EXCHANGE = r"barrier\.cluster\.arrive\.release;[^;]*barrier\.cluster\.wait\.acquire;"
FAULTS = {
    "nobody waits for the others": (EXCHANGE, ""),
    "nobody says that it wrote": (r"barrier\.cluster\.arrive\.release;", ""),
    "a number that is not told": (r"st\.shared::cluster\.f32[^;]*;", ""),
    "told to the first block alone": (r"(mapa\.shared::cluster\.u32 [^;]*), %r\d+;", r"\1, 0;"),
    "each block is the first": (r"%cluster_ctarank;", "%cluster_nctaid.y;"),
}


@pytest.mark.parametrize("kernel", ["channels_resident_forward", "channels_resident_backward"])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault, kernel):
    def edit(ptx: str) -> str:
        if not re.search(rf"\.entry \w*{kernel}", ptx) or "cluster" not in ptx:
            return ptx
        edited, found = re.subn(*FAULTS[fault], ptx, count=1)
        assert found
        return edited

    x, dy = X[:1, :3], DY[:1, :3]
    try:
        broken = gradients(x, dy, edit, random.Random(0))
    except PTXError:
        return
    assert not all(map(torch.equal, gradients(x, dy), broken)), "not noticed"
