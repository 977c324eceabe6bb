"""help() of every public name: its sections, its examples, which run, and a type for every argument and result."""

import doctest
import inspect
import re
from typing import get_overloads

import pytest
import torch

import normkernels as nk

SPACES = (nk, nk.functional, nk.parametrizations)
PUBLIC = {f"{s.__name__}.{name}": getattr(s, name) for s in SPACES for name in s.__all__ if callable(getattr(s, name))}
every_name = pytest.mark.parametrize("name", PUBLIC)
SECTIONS = ["Args", "Shape", "Attributes", "Returns", "Raises", "Example", "Source"]


def test_names_are_found():
    assert len(PUBLIC) > 55
    assert {"normkernels.LayerNorm", "normkernels.functional.layer_norm", "normkernels.use_backend"} <= set(PUBLIC)


@every_name
def test_help_has_sections(name):
    """Arguments and an example, what a layer takes or a function returns; sections in one order."""
    public, doc = PUBLIC[name], inspect.getdoc(PUBLIC[name]) or ""
    found = [s for s in re.findall(r"^(\w+):", doc, re.MULTILINE) if s in SECTIONS]
    assert found == sorted(found, key=SECTIONS.index)
    assert {"Args", "Example"} <= set(found)
    assert "#" not in doc, "a docstring for 1, 2 and 3 dims was not filled in"
    if isinstance(public, type):
        assert {"Shape", "Attributes", "Raises", "Source"} <= set(found)


@every_name
def test_help_names_every_argument(name):
    """In Args, or with those of a twin."""
    doc = inspect.getdoc(PUBLIC[name]) or ""
    args = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    named = (
        set(re.findall(r"\w+", " ".join(re.findall(r"^    (\w[\w, ]*):", args[1], re.MULTILINE)))) if args else set()
    )
    missing = set(inspect.signature(PUBLIC[name]).parameters) - set(named)
    assert not missing


@every_name
def test_examples_run(name):
    public = PUBLIC[name]
    names = {"torch": torch, "nk": nk} | vars(inspect.getmodule(public))
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(public) or "", names, name, None, 0)
    assert test.examples or re.search(r"^Example: see :func:", inspect.getdoc(public) or "", re.MULTILINE)
    torch.manual_seed(0)
    assert doctest.DocTestRunner().run(test).failed == 0


def methods(public) -> list:
    """A function itself; of a class what it adds to torch's: constructor and public methods."""
    if not isinstance(public, type):
        return [public]
    own = [base for base in public.__mro__ if base.__module__.startswith("normkernels")]
    found = {name: f for base in reversed(own) for name, f in vars(base).items() if inspect.isfunction(f)}
    return [f for name, f in found.items() if name == "__init__" or not name.startswith("_")]


@every_name
def test_signatures_are_annotated(name):
    for function in methods(PUBLIC[name]):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function.__qualname__
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert not bare, f"{function.__qualname__}: {bare}"


@pytest.mark.parametrize("stem", ["layer_norm", "layer_norm_2d", "rms_norm"])
def test_residuals_are_overloaded(stem):
    """A type checker knows that a residual makes a pair of the result."""
    overloads = get_overloads(inspect.unwrap(getattr(nk.functional, stem)))
    assert [o.__annotations__["return"] for o in overloads] == [torch.Tensor, tuple[torch.Tensor, torch.Tensor]]
