"""Whether a replayed step launches what Triton launches for it: ``python -m tests.fake_launches``, without a GPU.

Grids, dtypes, shapes and numbers of every launch of the later steps are those of the first one; prints a line for each
layer that is otherwise.
"""

import sys

import torch

from bench import fake_driver
from tests.layers import LAYERS, output

SKIPPED = ("DataNorm", "RNN", "LSTM", "GRU", "3d", "Conv1d", "InstanceNorm1d")  # not replayed, or the same kernels


def described(given):
    """Without the tensors' identity: a launch's grid and arguments, some of which are tuples."""
    if isinstance(given, torch.Tensor):
        return tuple(given.shape), given.stride(), given.dtype
    return tuple(described(a) for a in given) if isinstance(given, tuple) else given


def main() -> int:
    fake_driver.install()
    wrong = 0
    for layer in LAYERS:
        if any(kind in layer.name for kind in SKIPPED):
            continue
        module, x = layer.make(backend="triton"), layer.input().requires_grad_()
        steps, last = [], ""
        for _ in range(5):
            fake_driver.noted = []
            y = output(module, x)
            torch.autograd.grad(y, [x, *module.parameters()], torch.ones_like(y), allow_unused=True)
            steps.append([described(launch) for launch in fake_driver.noted])
            last = type(y.grad_fn).__name__
        if not steps[0] or any(step != steps[0] for step in steps) or last != "CppFunction":
            wrong += 1
            sys.stdout.write(f"{layer}: {last}, {[len(step) for step in steps]} launches\n")
    sys.stdout.write(f"{wrong} layers launch something else when they are replayed\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
