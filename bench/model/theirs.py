"""What torch's own kernels would take by the model at the least: their launches and sweeps of memory, free of code.

The model reads machine code, and torch's is not here. So a launch of torch's takes as long as its bytes or one answer
of memory (``times.least``), less than in truth, and ours, as compiled, are compared with that. Assumed of torch 2.13
without cuDNN (``aten/src/ATen/native/cuda``):

* rows: a launch forward; backward one for dx, and one for the parameters that reads dy and x again;
* batch norm: a sweep for the statistics, one for y; backward the same, of planes in one launch;
* instance norm: batch norm of images beside each other; small launches repeat two parameters and sum their gradients;
* group norm: as batch norm with a small launch between the sweeps, backward two;
* group and instance norm of channels_last begin with copies to planes.
"""

from .times import L2_KEPT, Device, Work, least

SMALL = Work(1, 1e3, 1e3)


def again(read: float, written: float = 0.0) -> Work:
    """A sweep over what the one before it read."""
    return Work(1, read, written, cached=min(0.98, L2_KEPT / read))


def launches(op: str, last: bool, size: float) -> tuple[list[Work], list[Work]]:
    """Of a forward and of a backward of ``size`` bytes of input."""
    copied, sums, both = Work(1, size, size), Work(1, size, 0.0), Work(1, 2 * size, 0.0)
    if op in ("layer_norm", "rms_norm"):
        return [copied], [Work(1, 2 * size, size), again(2 * size)]
    forward, backward = [sums, again(size, size)], [both, again(2 * size, size)]
    if op == "group_norm":
        copies = [copied] if last else []
        return [*copies, sums, SMALL, again(size, size)], [*copies, *copies, both, SMALL, SMALL, again(2 * size, size)]
    if not last or op == "instance_norm":
        backward = [Work(1, 4 * size, size, cached=min(0.98, L2_KEPT / (2 * size)) / 2)]
    if op == "batch_norm":
        return forward, backward
    copies = [copied] if last else []
    return [*copies, SMALL, SMALL, *forward], [*copies, *backward, SMALL, SMALL]


def taken(device: Device, op: str, last: bool, size: float) -> tuple[float, float]:
    """Seconds of a forward and of a backward."""
    forward, backward = (sum(least(device, w) for w in found) for found in launches(op, last, size))
    return forward, backward
