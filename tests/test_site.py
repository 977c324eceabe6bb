"""The docs site: a page for every guide, an entry for every public name, links that lead somewhere, no warning."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from test_help import PUBLIC

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages():
    """Name and text of every page, written anew."""
    module = runpy.run_path(str(ROOT / "docs/pages.py"))
    module["main"]()
    return {p.relative_to(module["OUT"]).as_posix(): p.read_text() for p in sorted(module["OUT"].glob("*.md"))}


def test_every_public_name_has_an_entry(pages):
    api = "".join(text for page, text in pages.items() if page.startswith("api-"))
    headings = set(re.findall(r"^## (\w+)$", api, re.MULTILINE))
    assert headings == {name.rpartition(".")[2] for name in PUBLIC}


def test_every_guide_is_a_page(pages):
    """And in the navigation, in which nothing else is."""
    nav = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert nav == set(pages)
    guides = {p.name for p in (ROOT / "docs").glob("*.md")}
    assert guides <= set(pages)


def test_links_lead_to_pages_or_files(pages):
    found = [link for text in pages.values() for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)]
    assert len(found) > 15
    assert not [link for link in found if not (ROOT / "build/site-pages" / link).is_file()]


def test_blocks_are_closed(pages):
    for page, text in pages.items():
        assert text.count("\n```") % 2 == 0, page


@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed")
def test_it_is_built_without_a_warning(pages, tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    html = (tmp_path / "api-layers.html").read_text()
    assert "BatchNormLSTM" in html
    assert not re.search(r'(?:src|href)="https?://(?!arxiv|keepachangelog|squidfunk)', html), "something is fetched"
