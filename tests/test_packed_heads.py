"""Norms over the heads of packed queries and keys: which layouts are read where they lie, and which are copied first.

A norm of rows takes rows at one distance, two or three: heads of a token, tokens and samples have one each.
"""

import functools

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.decorators import mark_unbacked
from torch._functorch.aot_autograd import make_boxed_func

import normkernels as nk
from bench.memory import usage

B, T, H, D = 2, 8, 4, 64
NORMS = {
    "layer": functools.partial(nk.LayerNorm, D),
    "rms": functools.partial(nk.RMSNorm, D),
    "layer, free": functools.partial(nk.LayerNorm, D, elementwise_affine=False),
    "rms, free": functools.partial(nk.RMSNorm, D, elementwise_affine=False),
}
LAYOUTS = {  # how a product's output is cut, and how many times a norm copies it
    "3, B, T, H, D": (lambda: torch.randn(3, B, T, H, D)[:2], 0),
    "B, T, H, 3, D": (lambda: torch.randn(B, T, H, 3, D)[..., 0, :], 0),
    "B, T, H, 2 D": (lambda: torch.randn(B, T, H, 2 * D)[..., D:], 0),
    "B, T, 3, H, D": (lambda: torch.randn(B, T, 3, H, D)[:, :, :2], 0),
    "B, T, 3, H, D to B, H, T, D": (lambda: torch.randn(B, T, 3, H, D).permute(2, 0, 3, 1, 4)[0], 0),
    "H D apart, to B, H, T, D": (lambda: torch.randn(H, D, B, T).permute(2, 0, 3, 1), 1),
    "four distances": (lambda: torch.randn(B, H, 3, T, 2, D).permute(0, 4, 1, 3, 2, 5)[..., :2, :], 1),
}
every_norm = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
every_layout = pytest.mark.parametrize(("packed", "copies"), LAYOUTS.values(), ids=LAYOUTS)


def tensors(call, x: Tensor) -> int:
    """How many of x's size a call allocates at once, beyond smaller things."""
    call()
    return round(max(usage(call)) / (x.numel() * x.element_size()))


def calls(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in graph.graph.nodes if str(node.target).startswith("aten.")]


@every_norm
@every_layout
def test_what_is_copied(make, packed, copies):
    """y, or dx, and the copy; the same rows as of a copy that the caller makes, to the bit."""
    torch.manual_seed(0)
    norm, x = make(), packed().requires_grad_()
    y, same = norm(x), norm(x.detach().contiguous())
    assert torch.equal(y, same)
    dy = torch.randn_like(y)
    leaves = [x, *norm.parameters()]
    with torch.no_grad():
        assert tensors(lambda: norm(x), x) == 1 + copies
    assert tensors(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), x) == 1 + copies
    whole = x.detach().contiguous().requires_grad_()
    found, wanted = (torch.autograd.grad(norm(t), [t, *norm.parameters()], dy) for t in (x, whole))
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize(("dtype", "columns"), [(torch.float32, 512), (torch.float32, 4096), (torch.bfloat16, 2048)])
def test_more_than_a_cache_holds(dtype, columns):
    """Rows whose result leaves past the caches, by loops that read ahead: no further than the rows at one distance."""
    torch.manual_seed(0)
    norm = nk.LayerNorm(columns).to(dtype)
    packed = torch.randn((40 << 20) // (4 * columns * dtype.itemsize), 3, 4, columns).to(dtype)
    for x in (packed[:, 2:], packed[:, 2, :3], packed[:, 2].transpose(0, 1)):  # the last ends where the tensor does
        assert torch.equal(norm(x), norm(x.contiguous()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("columns", [5, 33, 64, 160, 1030])
@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_gradients_that_lie_so(dtype, columns, tokens):
    """x, the gate, the residual and the gradients of both outputs, tokens of each head in turn; the bits of copies.

    Of rows that are short, of a whole number of lanes or not, of more than one tile, of few and more to a run.
    """
    torch.manual_seed(0)
    w, b = torch.randn(2, columns, dtype=dtype)

    def heads() -> Tensor:
        return torch.randn(B, tokens, 3, H, columns, dtype=dtype).permute(2, 0, 3, 1, 4)[1]

    given = [heads() for _ in range(5)]
    for extras in ({}, {"activation": "silu"}):

        def step(*tensors: Tensor, extras=extras) -> tuple[Tensor, ...]:
            x, residual, gate, dy, dsummed = tensors
            leaves = [t.detach().requires_grad_() for t in (x, residual, gate, w, b)]
            found = nk.functional.layer_norm(
                leaves[0], columns, *leaves[3:], residual=leaves[1], gate=leaves[2], **extras
            )
            return *found, *torch.autograd.grad(found, leaves, (dy, dsummed))

        assert all(map(torch.equal, step(*given), step(*(t.contiguous() for t in given))))


def test_another_batch_is_no_compilation():
    """Nor a copy: heads are read where they lie, of a batch of which nothing is known, and of symbolic tokens."""
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def kept(graph: torch.fx.GraphModule, _):
        graphs.append(graph)
        return make_boxed_func(graph)

    norm = nk.RMSNorm(D, backend="native")
    compiled = torch.compile(norm, backend=aot_autograd(fw_compiler=kept, bw_compiler=kept), fullgraph=True)
    for samples, tokens in ((2, 8), (3, 8), (5, 9)):
        x = torch.randn(samples, tokens, 3, H, D).permute(2, 0, 3, 1, 4)[0].requires_grad_()
        mark_unbacked(x, 0)
        torch._dynamo.mark_dynamic(x, 2)
        y, same = compiled(x), norm(x)
        assert torch.equal(y, same)
        dy = torch.randn_like(y).transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(*(torch.autograd.grad(t, x, dy)[0] for t in (y, same)))
    assert len(graphs) == 2
    assert not {"clone", "_unsafe_view"} & {str(node.target).split(".")[1] for g in graphs for node in calls(g)}


@every_norm
def test_many_at_once(make):
    """A batch of norms, mapped over, with parameters of each head where there are any."""
    torch.manual_seed(0)
    heads: list[nn.Module] = [make() for _ in range(H)]
    with torch.no_grad():
        for p in (p for head in heads for p in head.parameters()):
            p.add_(torch.randn_like(p))
    x = torch.randn(B, T, H, D)
    parameters, _ = torch.func.stack_module_state(heads)

    def one(p: dict[str, Tensor], t: Tensor) -> Tensor:
        return torch.func.functional_call(heads[0], p, (t,))

    y = torch.vmap(one, in_dims=(0, 2), out_dims=2)(parameters, x) if parameters else torch.vmap(heads[0], 2, 2)(x)
    torch.testing.assert_close(y, torch.stack([head(t) for head, t in zip(heads, x.unbind(2), strict=True)], 2))
