"""What other libraries' tests ask of their norms, asked of ours: their shapes, dtypes, options, tolerances, as tables.

Liger Kernel (RMS, added and RMS, layer, group norm), flash-linear-attention (layer, RMS, gated and group norm),
Apex (two dims normalised together, strided input, half precision), flash-attention's Triton norm (a residual in another
dtype, weights in a third), torchvision (frozen batch norm). The formula is compared with in float64, not their twin of
torch, which is further from it in 16 bits than they allow. Large batches are cut down: 65536 rows to 1024, 8 x 512 to
2 x 64. What those libraries have and this one has not is in docs/convert.md.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import normkernels as nk
from normkernels.functional import group_norm, layer_norm, rms_norm
from tests import peers

FLOAT, HALF, BRAIN, DOUBLE = torch.float32, torch.float16, torch.bfloat16, torch.float64
Tensors = list[Tensor | None]


class Ask(NamedTuple):
    """A norm of rows as a test calls it, and how near its results have to be: |difference| <= atol + rtol |wanted|."""

    kind: str
    shape: tuple[int, ...]
    atol: float
    rtol: float
    dims: int = 1
    dtype: torch.dtype = FLOAT
    weights: torch.dtype | None = FLOAT  # None: no weight, no bias
    residual: torch.dtype | None = None
    eps: float = 1e-6
    weight_offset: float = 0.0
    strided: bool = False
    activation: str | None = None  # of a gate

    def tensors(self) -> Tensors:
        """input, residual, weight, bias, gate; leaves that want a gradient."""
        torch.manual_seed(0)
        x, affine = torch.randn(self.shape, dtype=self.dtype), self.shape[-self.dims :]
        if self.strided:
            x = torch.randn([2 * n for n in self.shape], dtype=self.dtype)[::2, ::2, ::2]
        residual = None if self.residual is None else torch.randn(self.shape, dtype=self.residual)
        weight = None if self.weights is None else torch.randn(affine, dtype=self.weights)
        bias = None if weight is None or self.kind == "rms" else torch.randn_like(weight)
        gate = None if self.activation is None else torch.randn(self.shape, dtype=self.dtype)
        return [None if t is None else t.detach().requires_grad_() for t in (x, residual, weight, bias, gate)]

    def ours(self, x: Tensor, residual, weight, bias, gate) -> tuple[Tensor, ...]:
        extras: dict[str, Any] = {"residual": residual, "weight_offset": self.weight_offset, "eps": self.eps}
        shape = x.shape[-self.dims :]
        if self.kind == "rms":
            found = rms_norm(x, shape, weight, gate=gate, activation=self.activation, **extras)
        else:
            found = layer_norm(x, shape, weight, bias, gate=gate, activation=self.activation, **extras)
        return found if isinstance(found, tuple) else (found,)

    def by_formula(self, x: Tensor, residual, weight, bias, gate) -> tuple[Tensor, ...]:
        """In the widest dtype of its tensors."""
        dims = tuple(range(-self.dims, 0))
        s = x if residual is None else x + residual
        z = s if self.kind == "rms" else s - s.mean(dims, keepdim=True)
        y = z * torch.rsqrt(z.square().mean(dims, keepdim=True) + self.eps)
        y = y if weight is None else y * (weight + self.weight_offset)
        y = y if bias is None else y + bias
        y = y if gate is None else y * torch.sigmoid(gate) * (gate if self.activation == "silu" else 1)
        return (y,) if residual is None else (y, s)


def results(run, tensors: Tensors, dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Outputs of a call in these dtypes, then gradients of the tensors, through all outputs."""
    given = [t for t in tensors if t is not None]
    outputs = [y.to(dtype) for y, dtype in zip(run(*tensors), dtypes, strict=True)]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]
    found = torch.autograd.grad(outputs, given, grads)
    return [*(y.detach() for y in outputs), *found]


def widened(tensors: Tensors) -> Tensors:
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def asked(ask: Ask) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Results of ours, of the formula in the dtypes at hand, and in float64; y in input's dtype, s in its own."""
    tensors = ask.tensors()
    dtypes = [ask.dtype, *([] if ask.residual is None else [torch.promote_types(ask.dtype, ask.residual)])]
    rounded = results(ask.by_formula, widened(tensors), dtypes)  # the outputs, to which gradients are given
    return results(ask.ours, tensors, dtypes), results(ask.by_formula, tensors, dtypes), rounded


def check(ask: Ask) -> None:
    found, _, wanted = asked(ask)
    for one, other in zip(found, wanted, strict=True):
        near = torch.isclose(one.double(), other.double(), atol=ask.atol, rtol=ask.rtol)
        assert near.all(), (ask, one[~near], other[~near])


LIGER = [
    *(
        Ask("rms", shape, *near, dtype=dtype, weights=weights and dtype, weight_offset=offset, residual=added and dtype)
        for shape in ((2, 128, 512), (5, 123, 123), (2, 2, 8), (9, 7, 41))
        for dtype, near in ((FLOAT, (1e-4, 1e-6)), (BRAIN, (2e-1, 2e-2)))
        for weights, offset, added in itertools.product((True, None), (0.0, 1.0), (None, True))
    ),
    *(
        Ask("layer", shape, near, near, dtype=dtype, weights=dtype)
        for shape in ((2, 8, 64), (4, 16, 128), (1, 1, 1023), (3, 7, 256), (1, 1, 1500), (3, 512, 128))
        for dtype, near in ((FLOAT, 1e-5), (BRAIN, 2e-2))
    ),
]
LINEAR_ATTENTION = [
    *(
        Ask(kind, (2, 2, 512, n), 1e-3, 1e-3, weights=weights, eps=0.0 if kind == "rms" else 1e-5)
        for n in (50, 64, 128, 256)
        for kind, weights in (("rms", FLOAT), ("layer", FLOAT), ("layer", None))
    ),
    *(
        Ask(kind, (rows, n), 1e-3, 1e-3, eps=0.0 if kind == "rms" else 1e-5)
        for rows, n, kind in itertools.product((1, 2, 4, 8, 16, 32), (128, 256, 512), ("rms", "layer"))
    ),
    *(
        Ask(kind, (2, 2, 512, n), 1e-3, 1e-3, weights=weights, residual=added, activation=gate)  # FusedRMSNormGated
        for n, gate in itertools.product((50, 64, 128, 256), ("silu", "sigmoid"))
        for kind, weights, added in (("rms", FLOAT, None), ("layer", FLOAT, None), ("layer", None, FLOAT))
    ),
]
APEX = [
    Ask(kind, (rows, 32, 16), *near, dims=2, dtype=dtype, weights=weights, eps=1e-5, strided=strided)
    for kind, rows, strided in itertools.product(("rms", "layer"), (16, 1024), (False, True))
    for dtype, weights, near in (
        (FLOAT, None, (2e-4, 2e-3)),
        (FLOAT, FLOAT, (2e-4, 2e-3)),
        (HALF, HALF, (3e-3, 1.6e-2)),
        (BRAIN, BRAIN, (3e-2, 1.6e-2)),
        (HALF, FLOAT, (3e-3, 1.6e-2)),
    )
    if rows == 16 or dtype == FLOAT
]


@pytest.mark.parametrize("asks", [LIGER, LINEAR_ATTENTION, APEX], ids=["Liger", "flash-linear-attention", "Apex"])
def test_rows(asks):
    for ask in asks:
        check(ask)


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("residual", [None, HALF, BRAIN, FLOAT])
def test_residuals_in_another_dtype(kind, residual):
    """flash-attention's: twice as far from the formula as it is from itself in the dtypes at hand, at most, and atol.

    Without a residual every weight, else those in dtypes that a norm takes: layer norm its input's and float32.
    """
    inputs = [d for d in (HALF, BRAIN, FLOAT) if residual in (None, d, FLOAT)]
    for dtype, weights, n in itertools.product(inputs, (FLOAT, HALF, BRAIN), (192, 2048, 3000, 4096)):
        if kind == "layer" and weights not in (dtype, FLOAT):
            continue
        atol = 5e-2 if BRAIN in (dtype, residual, weights) else 1e-2 if HALF in (dtype, residual, weights) else 1e-4
        ask = Ask(kind, (2, 64, n), atol, 0.0, dtype=dtype, weights=weights, residual=residual)
        for one, plain, other in zip(*asked(ask), strict=True):
            off, bound = ((t.double() - other.double()).abs().max() for t in (one, plain))
            assert off <= 2 * bound + atol, (ask, float(off), float(bound))


@pytest.mark.parametrize(
    ("shape", "groups", "eps", "near"),
    [
        *(
            (shape, groups, 1e-6, 1e-4)
            for shape, groups in (
                ((1, 1, 3), 1), ((1, 32, 4), 32), ((16, 32, 4096), 1), ((2, 63, 2163), 21), ((16, 48, 8192), 12)
            )
        ),
        *(((1024, n), groups, 1e-5, 1e-3) for n, groups in itertools.product((64, 512, 2052), (1, 4))),
        *(((rows, n), groups, 1e-5, 1e-3) for rows, n, groups in itertools.product((1, 4, 16), (128, 256), (1, 4))),
    ],
)  # fmt: skip
def test_groups(shape, groups, eps, near):
    """Liger's images, with the numbers of its layer; flash-linear-attention's rows, of which each is an image."""
    torch.manual_seed(0)
    x, (weight, bias) = torch.randn(shape), torch.randn(2, shape[1])

    def by_formula(x, weight, bias):
        z = x.unflatten(1, (groups, -1)).flatten(2)
        z = (z - z.mean(-1, keepdim=True)) * torch.rsqrt(z.var(-1, correction=0, keepdim=True) + eps)
        extra = [1] * (len(shape) - 2)
        return (z.view(shape) * weight.view(-1, *extra) + bias.view(-1, *extra),)

    tensors: Tensors = [t.requires_grad_() for t in (x, weight.clone(), bias.clone())]
    found = results(lambda x, w, b: (group_norm(x, groups, w, b, eps),), tensors, [FLOAT])
    for one, other in zip(found, results(by_formula, widened(tensors), [DOUBLE]), strict=True):
        torch.testing.assert_close(one.double(), other, atol=near, rtol=near)


@pytest.mark.parametrize("seed", range(10))
def test_frozen_batch_norms(seed):
    """torchvision's: the state of a batch norm loaded, and what a batch norm in eval gives; its layer, converted."""
    torch.manual_seed(seed)
    x, names = torch.rand(4, 32, 28, 28), ("weight", "bias", "running_mean", "running_var")
    state = {name: torch.rand(32) for name in names}
    state["num_batches_tracked"] = torch.tensor(100)
    theirs = nn.Sequential(peers.FrozenBatchNorm2d(32))
    theirs[0].load_state_dict(state, strict=False)
    nk.convert(theirs)
    ours = nk.BatchNorm2d(32)
    ours.load_state_dict(state)
    ours.freeze()
    plain = nn.BatchNorm2d(32).eval()
    plain.load_state_dict(state)
    for layer in (ours, theirs[0].train()):
        assert isinstance(layer, nk.BatchNorm2d)
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(layer.running_mean, state["running_mean"], rtol=0, atol=0)
        assert not any(p.requires_grad for p in layer.parameters())
