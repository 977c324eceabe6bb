"""What must hold whatever the numbers: invariances, sums that vanish, linearity, bits that repeat."""

import itertools

import pytest
import torch
from common import (
    BY_ROW,
    CHANNELS,
    DEVICES,
    NORMS,
    STATEFUL,
    call,
    centred,
    every_channel_op,
    every_op,
    every_op_by_row,
    every_target,
    leaves,
    need,
    scanned,
    small,
)
from hypothesis import given
from hypothesis import strategies as st

import normkernels as nk
from normkernels.tolerance import run

# a state would have to be shifted and scaled too: see test_state_numbers.py
STATELESS = [op for op in NORMS if op not in STATEFUL]
CENTRED = [op for op in STATELESS if centred(op)]
sizes = {"rows": st.integers(1, 5), "columns": st.integers(2, 70)}


def results(op, sample, backend, cotangents=None, **tensors):
    return run(op, sample.call, sample.present() | tensors, list(cotangents or sample.cotangents), backend)


def close(got, want, scale=1.0):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * scale)


@given(**sizes, shift=st.sampled_from([-8.0, 0.5, 64.0]))
@every_target
@pytest.mark.parametrize("op", CENTRED, ids=str)
def test_shift(op, backend, device, rows, columns, shift):
    """Centred norms: f(x + c) = f(x), and dx sums to zero over each row."""
    need(op, backend, device)
    sample = small(op, rows, columns, torch.float64, device)
    x = sample.tensors["input"]
    plain, moved = results(op, sample, backend), results(op, sample, backend, input=x + shift)
    for name in plain:
        close(moved[name], plain[name], 100.0)
    close(plain["grad input"].sum(sample.dims), torch.zeros_like(x.sum(sample.dims)), 100.0)


@given(**sizes, power=st.integers(-6, 6))
@every_target
@pytest.mark.parametrize("op", STATELESS, ids=str)
def test_scale(op, backend, device, rows, columns, power):
    """With eps far below x², f(2^k x) = f(x), and dx shrinks by 2^k and is at right angles to x."""
    need(op, backend, device)
    sample = small(op, rows, columns, torch.float64, device)
    sample.call["eps"] = 1e-30
    x, factor = sample.tensors["input"], 2.0**power
    plain, scaled = results(op, sample, backend), results(op, sample, backend, input=x * factor)
    close(scaled["output 0"], plain["output 0"])
    size = plain["grad input"].abs().max().item() + 1
    close(scaled["grad input"] * factor, plain["grad input"], size)
    close((plain["grad input"] * x).sum(sample.dims), torch.zeros_like(x.sum(sample.dims)), 100 * size)


@given(**sizes)
@every_target
@every_op
def test_backward_is_linear_in_dy(op, backend, device, rows, columns):
    need(op, backend, device)
    if scanned(op, backend, device) and rows > 2:
        return
    sample = small(op, rows, columns, torch.float64, device, activation="tanh")
    (a,) = sample.cotangents
    b, tensors = torch.randn_like(a), leaves(op, sample)
    y, given = call(op, sample, backend, **tensors), list(tensors.values())
    found = (torch.autograd.grad(y, given, dy, retain_graph=True) for dy in (a, b, 2 * a - 3 * b))
    for of_a, of_b, of_both in zip(*found, strict=True):
        scale = 10 * (1 + of_a.abs().max().item() + of_b.abs().max().item())
        close(of_both, 2 * of_a - 3 * of_b, scale)


@given(columns=st.integers(1, 140), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["triton", "native"])  # torch's own sums, in the reference, promise no order
@every_op_by_row
def test_rows_are_independent(op, backend, device, columns, dtype):
    """Row i of a batch is bit for bit row i alone, forward and backward, though one beside it is far from zero."""
    need(op, backend, device)
    sample = small(op, 5, columns, dtype, device, activation="silu")
    x, (dy,) = sample.tensors["input"], sample.cotangents
    with torch.no_grad():
        x[1] += 1000
    batch = results(op, sample, backend)
    for i in (0, 3, 4):
        alone = results(op, sample, backend, [dy[i : i + 1]], input=x[i : i + 1])
        for name in ("output 0", "grad input"):
            assert torch.equal(alone[name][0], batch[name][i]), f"{name}, row {i}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_positions_are_independent(dtype):
    """A position of an image has the same bits beside one that is far from zero."""
    layer = nk.LayerNorm2d(24).to(dtype)
    x, dy = (torch.randn(2, 24, 9, 8, dtype=dtype) for _ in range(2))
    far = x.clone()
    far[0, :, 3, 4] += 1000

    def found(x):
        x = x.detach().requires_grad_()
        return layer(x), *torch.autograd.grad(layer(x), x, dy)

    for plain, beside in zip(found(x), found(far), strict=True):
        with torch.no_grad():
            beside[0, :, 3, 4] = plain[0, :, 3, 4]
        assert torch.equal(beside, plain)


BEYOND_CACHES = 36 << 20  # bytes: results leave past the caches then, by loops of their own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["identity", "silu", "tanh"])
@pytest.mark.parametrize("columns", [129, 512, 5000, 20_000])
@pytest.mark.parametrize("op", [op for op in BY_ROW if op not in CHANNELS and op.added == "residual"], ids=str)
def test_how_many_rows_changes_no_bit(op, columns, activation, dtype):
    """A row is bit for bit the same among a few and among more than any cache holds, forward and backward."""
    need(op, "native", "cpu")
    sample = small(op, BEYOND_CACHES // (columns * dtype.itemsize), columns, dtype, activation=activation)
    x, (dy,) = sample.tensors["input"], sample.cotangents
    with torch.no_grad():
        x[1] += 1000
        x[2, :16] += 1000  # by which sums are taken about a value far from the mean, and then again
    batch = results(op, sample, "native")
    for rows in (slice(3), slice(-2, None)):
        few = results(op, sample, "native", [dy[rows]], input=x[rows])
        for name in ("output 0", "grad input"):
            assert torch.equal(few[name], batch[name][rows]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_target
@every_op
def test_two_runs_are_equal(op, backend, device, dtype):
    need(op, backend, device)
    sample = small(op, 7 if op in CHANNELS else 67, 50, dtype, device, added=True)
    first, second = results(op, sample, backend), results(op, sample, backend)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 200_000), (300, 257), (3, 5000)], ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("op", [op for op in NORMS if op not in CHANNELS], ids=str)
def test_threads_do_not_change_bits(op, shape, dtype):
    """The native CPU kernels split work among threads in a way that leaves every sum as it was."""
    same_for_any_threads(op, small(op, *shape, dtype))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 300, 400), (2, 6, 150, 99), (9, 128, 5, 5), (9, 256, 6, 6)],
    ids=lambda s: "x".join(map(str, s)),
)
@every_channel_op
def test_threads_do_not_change_bits_of_channels(op, shape, dtype, channels_last):
    """One long statistic, some, and many short ones; the last are enough to be shared among the threads."""
    same_for_any_threads(op, op.make(shape, dtype, skip=True, activation="relu", channels_last=channels_last))


def same_for_any_threads(op, sample):
    need(op, "native", "cpu")
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(op, sample, "native"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


@pytest.mark.parametrize("op", [op for op in NORMS if op.stem != "online_norm"], ids=str)  # which walks in blocks
def test_work_is_shared_seldom(op):
    """Each time costs every thread a few microseconds: one or two forward and backward, whatever the size."""
    need(op, "native", "cpu")
    from normkernels._C import parallel_regions

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for rows, columns in ((8, 50), (64, 1000), (300, 257)):
            sample = small(op, rows, columns)
            tensors, counts = leaves(op, sample), [parallel_regions()]
            outputs = call(op, sample, "native", **tensors)
            counts.append(parallel_regions())
            torch.autograd.grad(outputs, list(tensors.values()), sample.cotangents)
            counts.append(parallel_regions())
            assert max(b - a for a, b in itertools.pairwise(counts)) <= 2, (rows, columns)
        assert counts[2] > counts[0]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@every_op
def test_in_place_on_the_output(op, device):
    """y may be overwritten before backward: nothing that backward needs lies in it."""
    sample = small(op, device=device)
    x = sample.tensors["input"].requires_grad_()
    want = torch.autograd.grad(torch.relu(call(op, sample)), x, sample.cotangents)
    assert torch.equal(torch.autograd.grad(call(op, sample).relu_(), x, sample.cotangents)[0], want[0])


@every_target
@every_op
def test_zero_rows(op, backend, device):
    """Rows of zeros are no special case: zero out (without a bias), finite gradients."""
    need(op, backend, device)
    sample = small(op, 3, 20, device=device)
    sample.tensors.pop("bias", None)
    found = results(op, sample, backend, input=torch.zeros_like(sample.tensors["input"]))
    assert not found["output 0"].any()
    assert all(t.isfinite().all() for t in found.values())
