"""The pages of the docs site: the guides as they are, and a page of the API from the docstrings.

python docs/pages.py && mkdocs build --strict      # build/site; needs no network
"""

import inspect
import re
import shutil
from pathlib import Path

import normkernels as nk

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build/site-pages"
PAGES = {
    "README.md": "index.md", "docs/install.md": "install.md", "docs/guide.md": "guide.md",
    "docs/convert.md": "convert.md",
    "docs/online_norm.md": "online_norm.md", "docs/normprop.md": "normprop.md", "docs/recurrent.md": "recurrent.md",
    "docs/adoption.md": "adoption.md", "docs/distributed.md": "distributed.md", "docs/deploy.md": "deploy.md",
    "docs/performance.md": "performance.md", "docs/measured.md": "measured.md",
    "docs/design.md": "design.md", "docs/mutations.md": "mutations.md", "docs/claims.md": "claims.md",
    "docs/invariances.md": "invariances.md", "examples/README.md": "examples.md", "bench/README.md": "benchmark.md",
    "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md",
}  # fmt: skip
SPACES = {"layers": nk, "functions": nk.functional, "parametrizations": nk.parametrizations}


def linked(source: Path, text: str) -> str:
    """Links to other pages, and to files, which are copied; of a folder, which is no page, the words alone."""

    def replaced(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = (source.parent / target).resolve()
        name = path.relative_to(ROOT).as_posix()
        if name in PAGES:
            return f"[{words}]({PAGES[name]}{anchor})"
        if not path.is_file():
            return words
        copy = OUT / "files" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        return f"[{words}](files/{name})"

    return re.sub(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)", replaced, text)


def described(doc: str) -> str:
    """A docstring as Markdown: sections, formulas and examples in blocks, names as code."""
    lines, out, block = doc.splitlines(), [], ""
    for line in lines:
        if block and line.strip() and not line.startswith("    "):
            out, block = [*out, "```", ""], ""
        section = re.fullmatch(r"(\w+):", line)
        if line.startswith(".. math::") or section:
            block = "tex" if section is None else "python" if section[1] == "Example" else "text"
            title = [f"**{section[1]}**", ""] if section else []
            rest = line.removeprefix(".. math::").strip()
            out += [*title, f"```{block}", *([rest] if section is None and rest else [])]
            continue
        out.append(line.removeprefix("    ") if block else re.sub(r":\w+:`([^`]+)`", r"`\1`", line.replace("``", "`")))
    return "\n".join(out + (["```"] if block else []))


def entry(space: str, name: str, public: object) -> str:
    """What help() says of a public name."""
    try:
        signature = str(inspect.signature(public)) if callable(public) else ""
    except ValueError:
        signature = ""
    activations = re.compile(r"Optional\[Literal\[.*?\]\]")
    shown = activations.sub("str | None", signature.replace("torch.Tensor", "Tensor"))
    call = f"```python\n{space}.{name}{shown}\n```\n"
    return f"## {name}\n\n{call}\n{described(inspect.getdoc(public) or '')}\n"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for source, page in PAGES.items():
        (OUT / page).write_text(linked(ROOT / source, (ROOT / source).read_text()))
    for page, space in SPACES.items():
        names = [name for name in space.__all__ if callable(getattr(space, name))]
        entries = [entry(space.__name__, name, getattr(space, name)) for name in names]
        (OUT / f"api-{page}.md").write_text(f"# {page.capitalize()}\n\n" + "\n".join(entries))


if __name__ == "__main__":
    main()
