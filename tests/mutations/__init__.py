"""What is broken on purpose: a table for each family, and where in a tree a piece of code is found."""

import functools
import importlib
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LAYERS = {
    "triton": "normkernels/_backends/triton",
    "reference": "normkernels/_backends/reference",
    "ops": "normkernels/ops",
    "modules": "normkernels/modules",
    "distributed": "normkernels/distributed",
    "package": "normkernels",
    "cpu": "csrc/cpu",
    "csrc": "csrc",
    "replay": "csrc/replay",
    "bench": "bench",
}


class Mutation(NamedTuple):
    """Replace ``old`` by ``new`` and run the tests that ``tests`` selects: one of them must fail.

    ``place`` is a layer, and where ``old`` is there more than once also how the path goes on:
    ``triton/channels_backward`` is ``channels/backward.py`` as well as ``_channels_backward.py``. ``survives`` says why
    no test can notice.
    """

    place: str
    tests: str
    old: str
    new: str
    survives: str = ""

    @property
    def layer(self) -> str:
        return self.place.split("/")[0]

    @property
    def native(self) -> bool:
        return LAYERS[self.layer].startswith("csrc")

    def key(self) -> tuple[str, str, str]:
        """What its row in a table is known by."""
        return self.place, self.old, self.new

    def spots(self, tree: Path) -> list[tuple[Path, re.Match]]:
        """Wherever the place has ``old``, however lines are broken and indented."""
        wanted, word = pattern(self.old), max(re.findall(r"\w+", self.old), key=len)
        texts = ((path, path.read_text()) for path in sources(self.place, tree))
        return [(path, found) for path, text in texts if word in text for found in wanted.finditer(text)]


@functools.cache
def sources(place: str, tree: Path) -> list[Path]:
    layer, _, part = place.partition("/")
    folder = tree / LAYERS[layer]
    found = [p for p in sorted(folder.rglob("*")) if p.suffix in (".py", ".h", ".cpp")]
    return [p for p in found if p.relative_to(folder).as_posix().replace("/", "_").lstrip("_").startswith(part)]


def pattern(old: str) -> re.Pattern:
    """Its words and signs with any space between, and a comma before what closes a list that was broken into lines."""
    tokens = re.findall(r"\w+|[^\w\s]", old)
    spaced = r"\s*".join((r"(?:,\s*)?" if t in ")]}" and i else "") + re.escape(t) for i, t in enumerate(tokens))
    return re.compile((r"\b" if tokens[0].isidentifier() else "") + spaced + (r"\b" if tokens[-1].isalnum() else ""))


def load() -> list[Mutation]:
    found = []
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        table = importlib.import_module(f"{__name__}.{name}").TABLE
        found += [Mutation(*key, *change) for key, changes in table.items() for change in changes]
    return found
