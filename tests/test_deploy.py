"""A package of AOTInductor with every kind of layer in it, without normkernels: in Python, and in C++ alone."""

import os
import shutil
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from layers import KINDS, first
from torch import Tensor, nn

from normkernels import backends

ROOT = Path(__file__).parents[1]
TORCH = Path(torch.__file__).parent
LIBRARY = ROOT / "normkernels/_C.abi3.so"
SERVER = """
import sys, torch
torch.ops.load_library(sys.argv[1])
model = torch._inductor.aoti_load_package(sys.argv[2])
torch.save([model(x) for x in torch.load(sys.argv[3])], sys.argv[4])
assert not [name for name in sys.modules if name.startswith("normkernels")]
"""
pytestmark = [
    pytest.mark.skipif(backends("cpu")["layer_norm_fwd"]["native"] is not None, reason="the extension is not built"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler"),
]


class Every(nn.Module):
    """(batch, features) -> what each kind of layer makes of the first of them, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([layer.used(False, torch.float32) for layer in KINDS])
        self.dims = [int(layer.name.endswith(("RNN", "LSTM", "GRU"))) for layer in KINDS]  # of the batch
        self.sizes = [
            (*layer.shape[:dim], *layer.shape[dim + 1 :]) for layer, dim in zip(KINDS, self.dims, strict=True)
        ]

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for norm, dim, sizes in zip(self.norms, self.dims, self.sizes, strict=True):
            y = first(norm(x[:, : prod(sizes)].reshape(-1, *sizes).movedim(0, dim)))
            found.append(y.movedim(dim, 0).flatten(1))
        return torch.cat(found, 1)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory) -> tuple[Path, list[Tensor], list[Tensor]]:
    """(the package, inputs, outputs)"""
    model, path = Every().eval(), tmp_path_factory.mktemp("package") / "model.pt2"
    inputs = [torch.randn(batch, max(map(prod, model.sizes))) for batch in (4, 7)]
    program = torch.export.export(model, (inputs[0],), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    held = {str(node.target) for node in program.graph.nodes if "normkernels" in str(node.target)}
    assert len(held) > 10
    assert all(name.startswith("normkernels_C.") for name in held)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    with torch.no_grad():
        return path, inputs, [model(x) for x in inputs]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def served(folder: Path, script: str, package: Path, inputs: list[Tensor]) -> subprocess.CompletedProcess:
    """What ``script`` makes of the inputs, in folder / "y.pt", by a new process that does not find this tree."""
    torch.save(inputs, folder / "x.pt")
    arguments = [LIBRARY, package, folder / "x.pt", folder / "y.pt"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_a_process_without_the_package(packaged, tmp_path):
    package, inputs, wanted = packaged
    done = served(tmp_path, SERVER, package, inputs)
    assert done.returncode == 0, done.stderr
    for y, want in zip(torch.load(tmp_path / "y.pt"), wanted, strict=True):
        close(y, want)


def test_a_process_without_the_extension(packaged, tmp_path):
    """An error, and it names the ops that are not there."""
    package, inputs, _ = packaged
    done = served(tmp_path, SERVER.replace("torch.ops.load_library", "str"), package, inputs)
    assert done.returncode != 0
    assert "normkernels_C::" in done.stderr


def test_a_server_without_python(packaged, tmp_path):
    package, inputs, wanted = packaged
    links = ["-L", TORCH / "lib", f"-Wl,-rpath,{TORCH / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"]
    build = ["g++", "-std=c++20", "-w", "-I", TORCH / "include", ROOT / "examples/serve.cpp", "-o", tmp_path / "serve"]
    subprocess.run([*build, *links], check=True)
    for x, want in zip(inputs, wanted, strict=True):
        command = [tmp_path / "serve", LIBRARY, package, *map(str, x.shape)]
        y = subprocess.run(command, input=x.numpy().tobytes(), capture_output=True, check=True).stdout
        close(torch.frombuffer(bytearray(y), dtype=torch.float32).view(want.shape), want)
