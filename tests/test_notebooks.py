"""What a notebook shows of results: tables."""

import json
import re

import normkernels as nk
from normkernels import info


def test_backends_are_a_table():
    """A row for each op; a reason that has signs of HTML is text."""
    found = nk.backends("cpu")
    html = found._repr_html_()
    assert isinstance(found, dict)
    assert html.count("<tr>") == len(found) + 1
    assert "<td>layer_norm_fwd</td>" in html
    assert "<td>yes</td>" in html
    found["layer_norm_fwd"]["triton"] = "a < b & c"
    assert "<td>a &lt; b &amp; c</td>" in found._repr_html_()


def test_info_is_what_a_terminal_shows():
    facts = info.collect("cpu")
    html = facts._repr_html_()
    text = re.sub("<[^>]*>", "", html)
    for word in ("layer_norm_bwd", "LayerNorm", "normkernels", "torch uses", "imported from"):
        assert word in text
    assert html.startswith("<pre")
    assert json.loads(json.dumps(facts))["ops"] == facts["ops"]


def test_results_print_nothing_by_themselves(capsys):
    info.collect("cpu")._repr_html_()
    assert capsys.readouterr().out == ""
