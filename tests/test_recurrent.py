"""Recurrent layers: long sequences, torch.nn's behaviour, invariances, running statistics, one op for all of time."""

import copy
import inspect
import pickle
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from common import every_target, need
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import normkernels as nk
from normkernels import functional as F
from normkernels.cases import OPS
from normkernels.cases._recurrent import MIXED, row_norm, sample
from normkernels.tolerance import check, run

RECURRENT = [op for op in OPS.values() if op.kind == "recurrent"]
LAYERS = [nk.LayerNormRNN, nk.LayerNormLSTM, nk.LayerNormGRU, nk.BatchNormRNN, nk.BatchNormLSTM]
CELLS = {nk.LayerNormRNN: nk.LayerNormRNNCell, nk.LayerNormLSTM: nk.LayerNormLSTMCell,
         nk.LayerNormGRU: nk.LayerNormGRUCell}  # fmt: skip
SWITCHES = [{}, {"norm_terms": "sum"}, {"norm_terms": "separate", "norm_over": "gate"}, {"norm_over": "joint"},
            {"norm_cell": "carried"}, {"norm_cell": None}, {"nonlinearity": "relu"}]  # fmt: skip

VARIANTS = [
    pytest.param(layer, switches, id="-".join([layer.__name__, *map(str, switches.values())]))
    for layer in CELLS
    for switches in SWITCHES
    if set(switches) <= set(inspect.signature(layer).parameters)
]

every_recurrent = pytest.mark.parametrize("op", RECURRENT, ids=str)
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
every_layer_norm = pytest.mark.parametrize("layer", CELLS, ids=lambda c: c.__name__)


def twin(layer):
    """torch.nn's layer."""
    return getattr(nn, layer.__name__.removeprefix("LayerNorm").removeprefix("BatchNorm"))


def states(hx):
    return hx if isinstance(hx, tuple) else (hx,)


def close(got, want, rtol=1e-9):
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("steps", [1, 2, 37, 200])
@every_target
@every_recurrent
def test_long_sequences(op, steps, backend, device):
    """As the loop of torch, forward and backward, through up to 200 steps."""
    need(op, backend, device)
    if backend == "triton" and device == "cpu" and steps > 37:
        pytest.skip("the interpreter would take minutes")
    for options in ({}, MIXED):
        s = sample(op.stem, "long", steps, 3, 5, **options)
        given = {k: t.to(device) for k, t in s.present().items()}, [dy.to(device) for dy in s.cotangents]
        if op.state:
            given[0]["weight"] /= 10  # the gain that Cooijmans et al. advise; with larger ones errors grow with time
        got = run(op, s.call, *given, backend)
        loop = replace(op, function=lambda *, backend, **arguments: op.torch(**arguments))
        want = run(loop, s.call, *given, "reference")
        for name in want:
            scale = max(1.0, want[name].abs().max().item())
            torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-9 * scale, msg=name)


@every_recurrent
def test_finite_differences(op):
    """First and second derivatives."""
    s = sample(op.stem, "small", 2, 2, 2, **MIXED)
    named = {k: t.detach().requires_grad_() for k, t in s.present().items() if k not in op.state}
    state = {k: t for k, t in s.present().items() if k in op.state}

    def function(*tensors):
        own = {k: t.clone() for k, t in state.items()}
        return op.function(**dict(zip(named, tensors, strict=True)), **own, **s.call, backend="reference")

    assert torch.autograd.gradcheck(function, list(named.values()))
    assert torch.autograd.gradgradcheck(function, list(named.values()))


@every_target
@every_recurrent
def test_without_gradients(op, backend, device):
    """Nothing is kept, and every bit is the same."""
    need(op, backend, device)
    for options in ({}, {"packed": True, **MIXED}):
        s = sample(op.stem, "kept", 3, 4, 6, device=device, **options)

        def call(s=s):
            tensors = {k: t.clone() if k in op.state else t for k, t in s.present().items()}
            return op.function(**tensors, **s.call, backend=backend)

        s.tensors["input"].requires_grad_()
        with_graph = call()
        with torch.no_grad():
            assert all(map(torch.equal, with_graph, call()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the sizes of launches are too small for a GPU")
@every_recurrent
def test_triton_walks_over_tiles(op, monkeypatch):
    """Rows, or a batch, that do not fit one tile, and programs with several tiles of rows."""
    need(op, "triton", "cpu")
    from normkernels.backends.triton.recurrent import batch, layer

    for module in (batch, layer):
        monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(layer, "PROGRAMS", 2)
    for options in ({}, MIXED):
        reports = check(op, sample(op.stem, "tiles", 2, 5 if op.state else 33, 17, **options), "triton", torch.float32)
        assert all(r.worst <= 1 for r in reports), [str(r) for r in reports if r.worst > 1]


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
    want = loop(torch.stack(terms), p["weight_hh"], p["norm_weight_hh"], p["bias_hh"], **options)
    close(ours(x)[0], want[0])


class Copies(TorchDispatchMode):
    """Lists what takes a tensor from one device to another, but for our own ops, which read batch_sizes on the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.dim() > 0]
        if func.namespace != "normkernels" and len({t.device for t in tensors}) > 1:
            self.found.append(str(func))
        return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_terms", ["separate", "sum"])
@every_layer
def test_packed_sequences_copy_nothing_to_the_device(layer, norm_terms, training):
    """A copy from the host waits for the device, and a CUDA graph cannot capture it; meta stands for any device."""
    made = layer(6, 5, bidirectional=True, norm_terms=norm_terms, device="meta").train(training)
    x = torch.randn(5, 4, 6, device="meta", requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor([5, 5, 3, 2]))
    with Copies() as copies, warnings.catch_warnings(action="ignore"):
        made(packed)[0].data.sum().backward()
    assert copies.found == []


@every_layer
def test_packed_sequences(layer):
    """Rows of different lengths, in any order, are what each is alone; batch norm shares statistics, so in eval."""
    ours = layer(3, 4, 2, bidirectional=True, batch_first=True, dtype=torch.float64).eval()
    x, lengths = torch.randn(4, 6, 3, dtype=torch.float64), [3, 6, 2, 3]
    first = torch.randn(4, 4, 4, dtype=torch.float64)
    hx = (first, first.flip(0)) if layer in (nk.LayerNormLSTM, nk.BatchNormLSTM) else first
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = ours(packed, hx)
    y, found = pad_packed_sequence(y, batch_first=True)
    assert found.tolist() == lengths
    for i, n in enumerate(lengths):
        alone = tuple(s[:, i : i + 1].contiguous() for s in states(hx))
        want, h = ours(x[i : i + 1, :n], alone if len(alone) == 2 else alone[0])
        close(y[i, :n], want[0])
        assert not y[i, n:].any()
        for got, of_row in zip(states(last), states(h), strict=True):
            close(got[:, i], of_row[:, 0])


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("layer", [*LAYERS, *CELLS.values()], ids=lambda c: c.__name__)
def test_torchs_weights_are_assigned(layer, device, dtype, nested):
    """Nothing stays on meta, or in another dtype: the norms have the first values, on the CPU those that they had."""
    theirs, ours, other = twin(layer)(4, 3, dtype=dtype), layer(4, 3, device=device), layer(4, 3, dtype=dtype)
    if device == "cpu":
        for m in (ours, other):
            with torch.no_grad():
                for name, p in m.named_parameters():
                    if name.startswith("norm_"):
                        p.fill_(0.5)
    a, b = (nn.Sequential(m) if nested else m for m in (ours, theirs))
    a.load_state_dict(b.state_dict(), assign=True)
    other.load_state_dict(theirs.state_dict())
    for (name, t), want in zip(ours.state_dict().items(), other.state_dict().values(), strict=True):
        assert (t.device, t.dtype) == (want.device, want.dtype), name
        assert torch.equal(t, want), name
    assert all(p.requires_grad for p in ours.parameters())
    x = torch.randn((6, 4) if "Cell" in layer.__name__ else (5, 6, 4), dtype=dtype)
    found, wanted = (tree_leaves(m(x)) for m in (ours, other))
    assert all(map(torch.equal, found, wanted))


@every_layer
def test_as_torch(layer):
    """Shapes, names, layouts and states are torch.nn's; its weights load, and what is wrong with them is still said."""
    arguments = (3, 4, 2), {"bidirectional": True, "batch_first": True, "dropout": 0.5}
    ours, theirs = layer(*arguments[0], **arguments[1]), twin(layer)(*arguments[0], **arguments[1])
    assert set(theirs.state_dict()) < set(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for name, p in theirs.named_parameters():
        assert torch.equal(p, ours.get_parameter(name)), name
    with pytest.raises(RuntimeError, match="weight_hh_l0"):
        ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k != "weight_hh_l0"})
    with pytest.raises(RuntimeError, match="Missing"):
        ours.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("norm_weight_ih_l1")}
                             if hasattr(ours, "norm_weight_ih_l1") else
                             {k: v for k, v in ours.state_dict().items() if k != "norm_weight_l1"})  # fmt: skip
    x = torch.randn(5, 6, 3)
    found, wanted = ours(x), theirs(x)
    assert found[0].shape == wanted[0].shape
    assert [s.shape for s in states(found[1])] == [s.shape for s in states(wanted[1])]
    ours.eval()
    single, last = ours(x[0])
    close(single, ours(x[:1])[0][0], 1e-6)
    assert states(last)[0].shape == (4, 4)
    assert torch.equal(ours(x)[0], ours(x)[0])  # dropout is off
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(again(x)[0], ours(x)[0])
    assert ours.double()(x.double())[0].dtype == torch.float64
    assert layer.__name__ in repr(ours)
    without = layer(3, 4, bias=False)
    assert not [name for name, _ in without.named_parameters() if "bias" in name]
    assert without(x.transpose(0, 1))[0].shape == (6, 5, 4)


@every_layer
def test_dropout_between_layers(layer):
    """All of the second layer's input is dropped."""
    ours = layer(3, 4, 2, dropout=1.0)
    for p in ours.parameters():
        nn.init.normal_(p)
    x = torch.randn(5, 6, 3)
    y = ours(x)[0]
    close(y, ours(torch.randn(5, 6, 3))[0])
    assert y.any()  # and nothing of the last one's output


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.__name__)
def test_cells(cell):
    ours, theirs = cell(3, 4), getattr(nn, cell.__name__.removeprefix("LayerNorm"))(3, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3)
    h = ours(x)
    assert [s.shape for s in states(h)] == [s.shape for s in states(theirs(x))]
    first = tuple(s[0] for s in states(h))
    alone = ours(x[0], first if len(first) == 2 else first[0])
    close(states(alone)[0], states(ours(x, h))[0][0], 1e-6)
    with pytest.raises(ValueError, match=f"{cell.__name__}: Expected input to be 1D or 2D"):
        ours(torch.randn(1, 2, 3))


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
    ours, sizes = layer(3, 4), []

    def count(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    for steps in (5, 50):
        torch._dynamo.reset()
        torch.compile(ours, fullgraph=True, backend=count)(torch.randn(steps, 2, 3))
    assert sizes[0] == sizes[1]
    torch._dynamo.reset()
    ours = layer(3, 4, momentum=0.0) if "Batch" in layer.__name__ else layer(3, 4)
    compiled, x = torch.compile(ours, fullgraph=True, backend="aot_eager"), torch.randn(5, 2, 3)
    results = []
    for module in (ours, compiled):
        y, hx = module(x)
        grads = torch.autograd.grad([y, *states(hx)], list(ours.parameters()), [y, *states(hx)])
        results.append([y, *states(hx), *grads])
    close(*results, rtol=1e-5)


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


class TestErrors:
    """torch's errors, or better ones; nothing is changed by a call that fails."""

    @every_layer
    def test_inputs(self, layer):
        ours, x = layer(3, 4, 2), torch.randn(5, 6, 3)
        before = {k: t.clone() for k, t in ours.state_dict().items()}
        h = torch.randn(2, 6, 4)
        hx = (h, h) if isinstance(ours, nk.LayerNormLSTM | nk.BatchNormLSTM) else h
        wrong = tuple(s[:, :5] for s in states(hx))
        wrong = wrong if len(wrong) == 2 else wrong[0]
        name = layer.__name__
        for error, message, arguments in [
            (ValueError, f"{name}: Expected input to be 2D or 3D, got 4D instead", (x[None],)),
            (RuntimeError, "input.size\\(-1\\) must be equal to input_size. Expected 3, got 2", (x[..., :2],)),
            (ValueError, "input dtype .* does not match weight dtype", (x.double(),)),
            (RuntimeError, f"{name}: Expected h_0 size \\(2, 6, 4\\), got \\[2, 5, 4\\]", (x, wrong)),
            (RuntimeError, f"{name}: for 2-D input, the states should also be 2-D", (x[:, 0], hx)),
            (ValueError, "input must have at least one step", (x[:0],)),
        ]:
            with pytest.raises(error, match=message):
                ours(*arguments)
        with pytest.raises(RuntimeError, match="enforce_sorted"):
            pack_padded_sequence(x, [1, 2, 3, 4, 5, 5])
        assert all(map(torch.equal, before.values(), ours.state_dict().values()))

    @every_layer
    def test_arguments(self, layer):
        for wrong, rule in [
            ({"norm_terms": "both"}, "norm_terms must be 'separate' or 'sum', got 'both'"),
            ({"backend": "cuda"}, "backend must be one of"),
        ]:
            with pytest.raises(ValueError, match=f"{layer.__name__}: {rule}"):
                layer(3, 4, **wrong)

    def test_switches(self):
        for make, message in [
            (partial(nk.LayerNormLSTM, norm_over="rz"), "LayerNormLSTM: norm_over must be one of 'joint', 'gate'"),
            (
                partial(nk.LayerNormLSTM, norm_cell="yes"),
                "LayerNormLSTM: norm_cell must be None, 'output' or 'carried'",
            ),
            (partial(nk.LayerNormRNN, nonlinearity="gelu"), "LayerNormRNN: nonlinearity must be 'tanh' or 'relu'"),
            (partial(nk.BatchNormRNN, max_steps=0), "BatchNormRNN: max_steps must be a positive int, got 0"),
        ]:
            with pytest.raises(ValueError, match=message):
                make(3, 4)

    @every_recurrent
    def test_functions(self, op):
        s = sample(op.stem, "errors", 3, 4, 6)
        gates = s.tensors["input"].shape[-1] // 6
        x, w = s.tensors["input"], s.tensors["weight_hh"]
        packed = {"input": x.flatten(0, 1)}
        for change, rule in [
            ({"input": x[0]}, "input must have shape \\(T, B"),
            ({"input": x[:0]}, "input must have at least one step"),
            ({"input": x.long()}, "input must be float64, float32"),
            ({"weight_hh": w[1:]}, f"weight_hh must have shape \\({gates} \\* hidden_size, hidden_size\\)"),
            ({"weight_hh": w.float()}, "weight_hh must have input's dtype"),
            ({"weight": torch.ones(5).double()}, "weight must have shape"),
            ({"h_0": torch.zeros(3, 6).double()}, "h_0 must have shape \\(4, 6\\), got \\(3, 6\\)"),
            ({"h_0": torch.zeros(4, 6)}, "h_0 must have input's dtype"),
            (packed | {"batch_sizes": torch.tensor([4, 5, 3])}, "batch_sizes must be .* not increasing, got"),
            (packed | {"batch_sizes": torch.tensor([4, 4, 3])}, "batch_sizes must sum up to the rows of input, 12"),
            (packed | {"batch_sizes": [4, 4, 4]}, "batch_sizes must be None or an int64 tensor on the CPU"),
        ]:
            with pytest.raises(ValueError, match=f"{op.stem}: {rule}"):
                op.function(**(s.present() | s.call | change))

    def test_one_row_has_no_batch_statistics(self):
        for layer in (nk.BatchNormRNN, nk.BatchNormLSTM):
            ours = layer(3, 4)
            before = {k: t.clone() for k, t in ours.state_dict().items()}
            packed = pack_padded_sequence(torch.randn(5, 3, 3), [5, 4, 4])
            for x in (torch.randn(5, 1, 3), packed):
                with pytest.raises(ValueError, match="more than one row in every step in training"):
                    ours(x)
            assert all(map(torch.equal, before.values(), ours.state_dict().values()))
            ours.eval()(packed)
        x, w = torch.randn(3, 1, 4), torch.randn(4, 4)
        with pytest.raises(ValueError, match="batch_norm_rnn: input must have more than one row"):
            F.batch_norm_rnn(x, w, None, None, training=True)


class TestStatistics:
    """Running statistics of each step."""

    def test_of_each_step(self):
        """Those of W_ih x_t are the batch's at step t, the variance unbiased."""
        ours = nk.BatchNormRNN(3, 4, momentum=1.0, max_steps=3, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        ours(x)
        terms = x @ ours.weight_ih_l0.T
        for got, want in (("mean", terms.mean(1)), ("var", terms.var(1))):
            close(getattr(ours, f"running_{got}_ih_l0"), torch.stack([want[0], want[1], want[4]]))
        assert ours.num_batches_tracked_l0.tolist() == [1, 1, 1]

    def test_last_one_is_reused(self):
        """Steps past those seen in training take the last of these."""
        ours = nk.BatchNormLSTM(3, 4, max_steps=10, dtype=torch.float64)
        for _ in range(3):
            ours(torch.randn(4, 6, 3, dtype=torch.float64))
        for name, buffer in ours.named_buffers():
            if name.startswith("running"):
                assert torch.equal(buffer[4:], buffer[3:4].expand(6, -1)), name
        assert ours.num_batches_tracked_l0.tolist() == [3] * 4 + [0] * 6
        cut = copy.deepcopy(ours).eval()
        for name, buffer in list(cut.named_buffers()):
            setattr(cut, name, buffer[:4])
        x = torch.randn(12, 2, 3, dtype=torch.float64)
        assert torch.equal(ours.eval()(x)[0], cut(x)[0])

    def test_longer_sequences_come_later(self):
        """A step that is reached for the first time goes on from the statistics that stood in for its own."""
        ours = nk.BatchNormRNN(3, 4, max_steps=4, momentum=0.5, dtype=torch.float64)
        ours(torch.randn(2, 6, 3, dtype=torch.float64))
        stood_in = ours.running_mean_ih_l0[1].clone()
        x = torch.randn(3, 6, 3, dtype=torch.float64)
        ours(x)
        own = (x[2] @ ours.weight_ih_l0.T).mean(0)
        close(ours.running_mean_ih_l0[2], (stood_in + own) / 2)

    def test_one_set_of_statistics(self):
        """The recipe that does not work: each step moves the same statistics on, one after the other."""
        ours = nk.BatchNormRNN(3, 4, norm_terms="sum", max_steps=1, momentum=0.5, dtype=torch.float64)
        x, mean = torch.randn(3, 6, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        y = ours(x)[0]
        for t in range(3):
            a = x[t] @ ours.weight_ih_l0.T + (y[t - 1] @ ours.weight_hh_l0.T if t else 0)
            mean = (mean + a.mean(0)) / 2
        close(ours.running_mean_l0[0], mean)

    def test_reverse_counts_from_the_last_step(self):
        ours = nk.BatchNormRNN(3, 4, bidirectional=True, momentum=1.0, max_steps=2, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        ours(x)
        terms = x @ ours.weight_ih_l0_reverse.T
        close(ours.running_mean_ih_l0_reverse, terms.mean(1)[[4, 0]])

    def test_without_running_statistics(self):
        ours = nk.BatchNormLSTM(3, 4, track_running_stats=False, dtype=torch.float64)
        x = torch.randn(5, 6, 3, dtype=torch.float64)
        assert not list(ours.buffers())
        assert torch.equal(ours(x)[0], ours.eval()(x)[0])

    def test_reset(self):
        ours = nk.BatchNormRNN(3, 4)
        first = {k: b.clone() for k, b in ours.named_buffers()}
        ours(torch.randn(5, 6, 3))
        assert not torch.equal(first["running_mean_hh_l0"], ours.running_mean_hh_l0)
        ours.reset_running_stats()
        assert all(map(torch.equal, first.values(), ours.buffers()))
