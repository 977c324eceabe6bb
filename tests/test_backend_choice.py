"""Which backend runs a call: the argument, use_backend, the environment, and the reasons why not."""

import functools
import os
import re
import subprocess
import sys
import types

import pytest
import torch
from common import NORMS, call, every_op, small

import normkernels as nk
from normkernels import _backends, _library, _replays, info


@pytest.fixture(autouse=True)
def nothing_is_replayed(monkeypatch):
    """These tests take backends away, which no process does after it has made calls on them."""
    monkeypatch.setattr(_replays, "replay", lambda *_: None)


@pytest.fixture
def asked(monkeypatch):
    """The backends that ops were asked for, in order; the reference runs them all."""
    names = []

    def resolve(op, device, name):
        names.append(name)
        return _backends.resolve(op, device, "reference")

    monkeypatch.setattr(_library, "resolve", resolve)
    return names


def fresh(code: str, **environment: str) -> str:
    """What a new Python process prints."""
    env = {k: v for k, v in os.environ.items() if k not in ("NORMKERNELS_BACKEND", "TRITON_INTERPRET")} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


@every_op
def test_the_argument_wins(op, asked):
    """backend= beats use_backend, which nests and ends with its block."""
    sample = small(op)
    with nk.use_backend("triton"):
        call(op, sample)
        call(op, sample, backend="native")
        with nk.use_backend(None):
            call(op, sample)
        call(op, sample)
    call(op, sample)
    assert asked == ["triton", "native", None, "triton", None]


@every_op
def test_backward_uses_what_forward_used(op, asked):
    """Whatever use_backend says by then."""
    sample = small(op)
    x = sample.tensors["input"].requires_grad_()
    with nk.use_backend("native"):
        y = call(op, sample)
    z = call(op, sample, backend="triton")
    with nk.use_backend("reference"):
        torch.autograd.grad(y, x, sample.cotangents)
        torch.autograd.grad(z, x, sample.cotangents)
    assert asked == ["native", "triton", "native", "triton"]


@pytest.mark.parametrize("name", ["triton", "native"])  # the reference is torch itself
@every_op
def test_a_request_never_falls_back(op, name, monkeypatch):
    """A backend that cannot run is an error with the reason, however it was asked for."""
    monkeypatch.setattr(_backends, "unusable", lambda backend, op, device: f"{backend} is away")
    _backends.resolve.cache_clear()
    sample = small(op)
    message = f"{op.stem}_fwd: backend '{name}' cannot run here: {name} is away"
    with pytest.raises(RuntimeError, match=message):
        call(op, sample, backend=name)
    with nk.use_backend(name), pytest.raises(RuntimeError, match=message):
        call(op, sample)
    _backends.resolve.cache_clear()


def test_the_reference_warns_once(monkeypatch, recwarn):
    """When nothing faster runs, the first call says so and why; later calls, of any op, are silent."""
    monkeypatch.setattr(_backends, "_native_unusable", lambda op, device: "not built for this test")
    monkeypatch.setattr(_backends, "_say_once", functools.cache(_backends._say_once.__wrapped__))
    _backends.resolve.cache_clear()
    first, *others = [(op, small(op)) for op in NORMS]
    with pytest.warns(UserWarning, match=r"normkernels runs in plain PyTorch on cpu\. .*not built for this test"):
        call(*first)
    recwarn.clear()
    for op, sample in [first, *others]:
        call(op, sample)
        call(op, sample, backend="reference")
    assert not recwarn.list
    _backends.resolve.cache_clear()


@pytest.mark.parametrize("make", [lambda: nk.use_backend("cuda").__enter__(), lambda: nk.LayerNorm(3, backend="cuda")])
def test_unknown_names(make):
    with pytest.raises(ValueError, match="backend must be one of triton, native, reference, got 'cuda'"):
        make()


def test_the_table_of_backends():
    """Every op, every backend: None or a reason."""
    table = nk.backends("cpu")
    assert {f"{stem}_{way}" for stem in ("layer_norm", "rms_norm") for way in ("fwd", "bwd")} <= table.keys()
    for row in table.values():
        assert list(row) == ["triton", "native", "reference"]
        assert row["reference"] is None


STUBS = {
    "empty": {},
    "old": {"__version__": "2.1.0"},
    "knobs that are others": {"__version__": "9.0", "knobs": types.SimpleNamespace()},
    "no package": {"knobs": types.SimpleNamespace(runtime=types.SimpleNamespace(interpret=True))},
}


@pytest.mark.parametrize("stub", STUBS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_another_module_called_triton(stub, device, monkeypatch, capsys):
    """Is a reason and no crash, in info too; an automatic choice goes on to the next backend."""
    module = types.ModuleType("triton")
    vars(module).update(STUBS[stub])
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", module)
    _backends.resolve.cache_clear()
    reason = _backends.unusable("triton", "layer_norm_fwd", device)
    version = STUBS[stub].get("__version__", "of no version")
    assert re.match(rf"triton {version} cannot be used \(.*\); pip install 'triton>=3.6'$", reason)
    assert all(row["triton"] == reason for row in nk.backends(device).values())
    with pytest.raises(RuntimeError, match=f"backend 'triton' cannot run here: triton {version} cannot be used"):
        _backends.resolve("layer_norm_fwd", device, "triton")
    monkeypatch.setattr(_backends, "_native_unusable", lambda op, device: None)
    with monkeypatch.context() as patch:
        patch.setattr(_backends, "_load", lambda name, op, device: name)
        assert _backends.resolve("layer_norm_fwd", device, None) == "native"
    _backends.resolve.cache_clear()
    assert info.main(["--device", device]) == 0
    assert "cannot be used" in capsys.readouterr().out


def test_a_triton_whose_import_fails():
    """With whatever it raises."""
    code = (
        "import sys, types, importlib.abc\n"
        "class Broken(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'triton': raise OSError('libcuda.so.1 is broken')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from normkernels import backends, info\n"
        "sys.stdout.write(backends('cpu')['rms_norm_fwd']['triton'] + info.versions()['triton'])\n"
    )
    found = fresh(code)
    assert found.startswith("triton of no version cannot be used (OSError: libcuda.so.1 is broken)")
    assert found.endswith("cannot be imported (libcuda.so.1 is broken)")


CALL = "import torch, normkernels as nk; nk.functional.rms_norm(torch.ones(2, 3), 3)"


def test_environment():
    """NORMKERNELS_BACKEND is the request of the whole process, and never falls back."""
    show = "import sys; from normkernels._backends import requested; sys.stdout.write(str(requested(None, 'op')))"
    assert fresh(show, NORMKERNELS_BACKEND="") == "None"
    assert fresh(show, NORMKERNELS_BACKEND="reference") == "reference"
    code = f"try:\n    {CALL}\nexcept RuntimeError as e:\n    import sys; sys.stdout.write(str(e))"
    assert "rms_norm_fwd: backend 'triton' cannot run here: " in fresh(code, NORMKERNELS_BACKEND="triton")
    code = "try:\n    import normkernels\nexcept ValueError as e:\n    import sys; sys.stdout.write(str(e))"
    assert fresh(code, NORMKERNELS_BACKEND="cuda").startswith("NORMKERNELS_BACKEND: backend must be one of")
