"""Planes that the CPU kernels take together, those of an image in a call, and larger ones: every way they end."""

import pytest
import torch

import normkernels.functional
from normkernels._backends import unusable
from normkernels.cases import OPS
from normkernels.tolerance import check

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
POSITIONS = (3, 6, 15, 16, 17, 31, 49, 64, 256, 1023, 1025, 2113)
pytestmark = pytest.mark.skipif(unusable("native", "group_norm_fwd", "cpu") is not None, reason="not built")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_every_end(name, positions, dtype):
    """Nine channels or more, for eight of them are added up together."""
    for activation, skip in ((None, False), ("relu", True), ("silu", False), ("tanh", True), ("leaky_relu", False)):
        found = off(OPS[name], (3, 18, positions, 1), dtype, activation=activation, skip=skip)
        assert not found, (activation, skip)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [6, 18, 96, 128])
@pytest.mark.parametrize("positions", [1, 3, 49, 64, 65])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_small_images(name, positions, channels, dtype):
    """Channels that lie last, on both sides of what counts as small; one position lies either way."""
    if positions == 1 and name == "instance_norm":
        pytest.skip("a value alone has no variance")
    for activation, skip in ((None, False), ("relu", True), ("silu", False)):
        for last in (True, False)[: 1 + (positions == 1)]:
            shape = 5, channels, positions, 1
            assert not off(OPS[name], shape, dtype, last, activation=activation, skip=skip), (activation, last)


@pytest.mark.parametrize("N", [4, 6, 7])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm"])
def test_images_taken_as_one(name, N):
    """Four of such images make one, or as many as divide the batch."""
    for positions, channels in ((64, 16), (1, 1024)):
        if positions > 1 or name == "group_norm":
            for activation, skip in ((None, False), ("relu", True), ("silu", False)):
                sample = OPS[name], (N, channels, positions, 1), torch.float32
                assert not off(*sample, activation=activation, skip=skip), (positions, activation)


@pytest.mark.parametrize("positions", [17, 49, 65, 140])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm"])
def test_an_image_alone_has_the_bits_that_it_has_among_others(name, positions):
    """However many planes are added up together, and whether these are all."""
    x, dy = torch.randn(2, 5, 6, positions, 1).unbind()
    norm = getattr(normkernels.functional, name)

    def results(x, dy):
        x = x.clone().requires_grad_()
        y = norm(x, 3) if name == "group_norm" else norm(x)
        return [y.detach(), *torch.autograd.grad(y, x, dy)]

    whole = results(x, dy)
    for i in range(5):
        assert all(torch.equal(t[0], w[i]) for t, w in zip(results(x[i : i + 1], dy[i : i + 1]), whole, strict=True))


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("activation", ["identity", "relu", "silu"])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm"])
def test_how_many_images_changes_no_bit(name, activation, last):
    """Among more than any cache holds results leave past the caches, by loops of their own."""
    layout = torch.channels_last if last else torch.contiguous_format
    x, dy = (torch.randn(1200, 64, 8, 8).contiguous(memory_format=layout) for _ in range(2))

    def results(x, dy):
        x, groups = x.detach().requires_grad_(), (8,) * (name == "group_norm")
        y = getattr(normkernels.functional, name)(x, *groups, activation=activation)
        return [y.detach(), *torch.autograd.grad(y, x, dy)]

    for few, many in zip(results(x[:2], dy[:2]), results(x, dy), strict=True):
        assert torch.equal(few, many[:2])


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("D", [6, 128, 300])
def test_groups_summed_at_once(D, last):
    """As many as 256 channels are, and an odd rest of each; larger groups part by part."""
    assert not off(OPS["group_norm"], (3, 32 * D, 3, 1), torch.float32, last)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["group_norm", "batch_norm"])
def test_results_beyond_the_second_cache(name, last):
    """Two megabytes, whose lines are asked for."""
    assert not off(OPS[name], (2, 96, 2800, 1), torch.float32, last)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("positions", [60, 1000, 2000])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_first_values_far_from_the_others(name, positions, last):
    """The moments of a run, or of a column, are taken about the first one, or the mean of eight."""
    for many in (1, 8):

        def far(x, many=many):
            x[:, :, :many] = 1e4

        assert not off(OPS[name], (1, 8, positions, 1), torch.float32, last, far), many


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("power", [-70, 66])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_squares_that_float_does_not_hold(name, power, last):
    def scaled(x):
        x *= 2.0**power

    assert not off(OPS[name], (2, 8, 60, 1), torch.float32, last, scaled, eps=1e-44)


def off(op, shape, dtype, last=False, change=None, **options):
    """What the tolerance does not allow, in words."""
    torch.manual_seed(0)
    sample = op.make(shape, torch.float32, "cpu", **options)
    if last:
        wide = {k: t for k, t in sample.tensors.items() if t is not None and t.dim() == 4}
        sample.tensors.update({k: t.to(memory_format=torch.channels_last) for k, t in wide.items()})
    if change:
        change(sample.tensors["input"])
    return [str(report) for report in check(op, sample, "native", dtype) if report.worst > 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("D", [15, 16, 17, 100, 2048, 2049])
def test_groups_at_one_position(D, dtype):
    """On both sides of what goes as rows; far from 0, too."""
    op = OPS["group_norm"]
    assert not off(op, (3, 32 * D, 1, 1), dtype)
    assert not off(op, (3, 32 * D, 1, 1), dtype, change=lambda x: x.add_(100))


def test_groups_at_one_position_past_the_caches():
    """32 MB and more: the bits of an image alone, whose results stay in them."""
    x, dy, w, b = torch.randn(8193, 1030), torch.randn(8193, 1030), torch.rand(1030), torch.rand(1030)

    def results(rows):
        leaf = x[rows].requires_grad_()
        y = normkernels.functional.group_norm(leaf, 10, w, b, backend="native")
        return y.detach(), torch.autograd.grad(y, leaf, dy[rows])[0]

    for found, alone in zip(results(slice(None)), results(slice(8000, 8001)), strict=True):
        assert torch.equal(found[8000], alone[0])


@pytest.mark.parametrize("positions", [16, 49])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_squares_that_vanish_where_next_to_nothing_is_added(last, positions):
    x = torch.randn(4, 6, positions, 1)
    x = x.to(memory_format=torch.channels_last) if last else x
    y = normkernels.functional.instance_norm(x.double(), eps=1e-60).float()
    found = normkernels.functional.instance_norm(x * 1e-25, eps=1e-60, backend="native")
    torch.testing.assert_close(found, y)
