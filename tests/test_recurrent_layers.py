"""Recurrent layers are loops of cells, and keep their invariances, compiled and in 16 bits too."""

import inspect

import pytest
import torch
from recurrent_layers import CELLS, close, every_layer, states
from torch import nn

import normkernels as nk
from normkernels.cases import OPS
from normkernels.cases._recurrent import row_norm

pytestmark = pytest.mark.usefixtures("seeded")

SWITCHES = [{}, {"norm_terms": "sum"}, {"norm_terms": "separate", "norm_over": "gate"}, {"norm_over": "joint"},
            {"norm_cell": "carried"}, {"norm_cell": None}, {"nonlinearity": "relu"}]  # fmt: skip
VARIANTS = [
    pytest.param(layer, switches, id="-".join([layer.__name__, *map(str, switches.values())]))
    for layer in CELLS
    for switches in SWITCHES
    if set(switches) <= set(inspect.signature(layer).parameters)
]
every_layer_norm = pytest.mark.parametrize("layer", CELLS, ids=lambda c: c.__name__)


@pytest.mark.parametrize(("layer", "switches"), VARIANTS)
def test_layer_is_a_loop_of_cells(layer, switches):
    """Two layers in both directions are cells, step after step."""
    ours = layer(3, 4, 2, bidirectional=True, dtype=torch.float64, **switches)
    cell = CELLS[layer](3, 4, dtype=torch.float64, **switches)
    for p in ours.parameters():
        nn.init.normal_(p)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    y, hx = ours(x)

    def loop(x, suffix, reverse):
        own = {k.removesuffix(suffix): p for k, p in ours.named_parameters() if k.endswith(suffix)}
        h, ys = None, []
        for t in reversed(range(5)) if reverse else range(5):
            h = torch.func.functional_call(cell, own, (x[t], h))
            ys.append(states(h)[0])
        return torch.stack(ys[::-1] if reverse else ys), h

    want, lasts = x, []
    for k in range(2):
        pairs = [loop(want, f"_l{k}{end}", bool(end)) for end in ("", "_reverse")]
        want = torch.cat([y for y, _ in pairs], -1)
        lasts += [states(h) for _, h in pairs]
    close(y, want)
    for got, last in zip(states(hx), zip(*lasts, strict=True), strict=True):
        close(got, torch.stack(last))
    parameters = [x, *ours.parameters()]
    dy = torch.randn_like(y)
    close(*(torch.autograd.grad(out, parameters, dy, retain_graph=True) for out in (y, want)))


@pytest.mark.parametrize(
    ("layer", "norm_over", "groups"),
    [(nk.LayerNormRNN, None, (1,)), (nk.LayerNormLSTM, "joint", (4,)), (nk.LayerNormLSTM, "gate", (1, 1, 1, 1)),
     (nk.LayerNormGRU, "joint", (3,)), (nk.LayerNormGRU, "gate", (1, 1, 1)), (nk.LayerNormGRU, "rz", (2, 1))],
)  # fmt: skip
def test_both_terms(layer, norm_over, groups):
    """The input's term is normalised as the recurrent one is, group by group; biases come after."""
    switches = {} if norm_over is None else {"norm_over": norm_over}
    ours = layer(3, 4, norm_terms="separate", dtype=torch.float64, **switches)
    for p in ours.parameters():
        nn.init.normal_(p)
    p = {name.removesuffix("_l0"): t for name, t in ours.named_parameters()}
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    terms = [row_norm(t @ p["weight_ih"].T, p["norm_weight_ih"], p["bias_ih"], 1e-5, groups) for t in x]
    cell = {f"cell_{k}": p[f"norm_{k}_cell"] for k in ("weight", "bias") if layer is nk.LayerNormLSTM}
    loop = OPS[f"layer_norm_{layer.__name__.removeprefix('LayerNorm').lower()}"].torch
    options = switches | cell | {"norm_terms": "separate"}
    norm = {"weight": p["norm_weight_hh"], "bias": p["bias_hh"]}
    want = loop(input=torch.stack(terms), weight_hh=p["weight_hh"], **norm, **options)
    close(ours(x)[0], want[0])


@pytest.mark.parametrize("norm_terms", ["sum", "separate"])
@every_layer_norm
def test_invariances(layer, norm_terms):
    """Scaling (W_ih, W_hh) together, or adding one vector to all their rows, changes nothing; <W, dW> = 0."""
    over = {} if layer is nk.LayerNormRNN else {"norm_over": "joint"}
    ours = layer(3, 4, norm_terms=norm_terms, eps=0.0, dtype=torch.float64, **over)
    x, first = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(1, 2, 4, dtype=torch.float64)
    hx = (first, first) if layer is nk.LayerNormLSTM else first  # eps = 0 cannot take a state of zeros
    y = ours(x, hx)[0]
    weights = [ours.weight_ih_l0, ours.weight_hh_l0]
    grads = torch.autograd.grad(y, weights, torch.randn_like(y))
    inner = sum((w * g).sum() for w, g in zip(weights, grads, strict=True))
    assert abs(inner.item()) < 1e-12 * sum(
        w.norm().item() * g.norm().item() for w, g in zip(weights, grads, strict=True)
    )
    with torch.no_grad():
        for change in (lambda w: w.mul_(3), lambda w: w.add_(torch.randn(w.shape[1], dtype=w.dtype))):
            for w in weights:
                change(w)
            close(ours(x, hx)[0], y, 1e-12)


@every_layer
def test_compile(layer):
    """One graph whose size does not depend on the number of steps, and the values and gradients of eager."""
    ours, sizes = layer(3, 4, momentum=0.0) if "Batch" in layer.__name__ else layer(3, 4), []

    def count(graph, inputs):
        sizes.append(len(graph.graph.nodes))
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    torch._dynamo.reset()
    torch.compile(ours, fullgraph=True, backend=count)(torch.randn(50, 2, 3))
    torch._dynamo.reset()
    x, results = torch.randn(5, 2, 3), []
    for module in (ours, torch.compile(ours, fullgraph=True, backend=count)):
        y, hx = module(x)
        grads = torch.autograd.grad([y, *states(hx)], list(ours.parameters()), [y, *states(hx)])
        results.append([y, *states(hx), *grads])
    close(*results, rtol=1e-5)
    assert sizes[0] == sizes[1]


@every_layer
def test_autocast(layer):
    """The products, and so the sequence, are in bfloat16."""
    ours = layer(3, 4)
    x = torch.randn(5, 6, 3)
    with torch.autocast("cpu"):
        y, _ = ours(x, ours(x)[1])
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert ours.weight_hh_l0.grad.dtype == torch.float32
    if "Batch" not in layer.__name__:
        torch.testing.assert_close(y.float(), ours(x, ours(x)[1])[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_layer
def test_16_bits(layer, dtype):
    ours = layer(3, 4).to(dtype)
    y, hx = ours(torch.randn(5, 6, 3, dtype=dtype))
    assert y.dtype == states(hx)[0].dtype == dtype
