"""How many kernels of Triton a call launches: recorded on meta tensors, where nothing is compiled or run."""

import pytest
from test_ptx_triton import compiled

COUNT = """
import sys
from bench.model.times import H100
from bench.model.work import calls
op, last, *shapes = sys.argv[1:]
for shape in shapes:
    forward, backward, _ = calls(op, tuple(map(int, shape.split("x"))), last == "True", H100)
    print(len(forward), len(backward))
"""
LENGTHS = (1, 8, 33, 128, 777, 1025, 4096, 5120, 6143, 8192, 8193, 12288, 16384, 20000, 32768, 49151, 65536, 262144)
FEW = ("1x16x112x112", "4x64x56x56", "1x256x64x64", "32x512x14x14", "4x512x64x64", "32x2048x7x7")
IMAGES = ("32x256x56x56", "32x2048x7x7", "2x320x64x64", "1x128x20x64x64", "4x16x1x8")


def counts(op: str, last: bool, *shapes: str) -> list[tuple[int, ...]]:
    printed = compiled("-c", COUNT, op, str(last), *shapes)
    return [tuple(map(int, line.split())) for line in printed.splitlines()]


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_rows_of_any_length_take_one_kernel_and_two(op):
    """Two forward where programs share a long row of few."""
    assert set(counts(op, False, *(f"4096x{N}" for N in LENGTHS))) == {(1, 2)}
    assert set(counts(op, False, *(f"1x{N}" for N in LENGTHS))) == {(1, 2), (2, 2)}


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
@pytest.mark.parametrize("op", ["batch_norm", "instance_norm", "group_norm"])
def test_channels_take_at_most_three(op, last):
    """The kernel that merges partial sums into means adds up those of the parameters too."""
    assert all(forward <= 3 and backward <= 3 for forward, backward in counts(op, last, *IMAGES))


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
@pytest.mark.parametrize("op", ["batch_norm", "instance_norm", "group_norm"])
def test_channels_take_at_most_two_forward_where_partial_results_are_few(op, last):
    """Each program that applies merges them; where they are many, a kernel of its own does."""
    assert {forward for forward, _ in counts(op, last, *FEW)} <= {1, 2}
    if op == "batch_norm":
        assert counts(op, last, "32x64x112x112")[0][0] == 2 + last


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
def test_a_batch_takes_at_most_two_backward(last):
    """One where a program holds a channel; beyond, each program that fills dx merges the sums of its channels."""
    assert {backward for _, backward in counts("batch_norm", last, *FEW, *IMAGES, "64x16x112x112")} <= {1, 2}
    held = counts("batch_norm", last, "2x16x16x16", "1x64x28x28")
    assert {backward for _, backward in held} == {1}
