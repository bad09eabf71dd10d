"""Notebooks on the site: formulas are MathML, links lead to pages, nothing is fetched from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks_of_the_site", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name):
    return SimpleNamespace(file=SimpleNamespace(src_uri=f"notebooks/{name}"))


def test_formulas_and_links_of_a_notebook(hooks):
    found = hooks.on_page_content(
        '<script src="https://elsewhere/MathJax.js"></script><p>Let $a &lt; b$, costs $5.</p><pre>x = "$y$"</pre>'
        '<a href="02_next.ipynb#part">on</a> <a href="https://x.org/a.ipynb">raw</a>',
        page("01_first.ipynb"),
    )
    assert found.count("<math") == 1
    assert "<mo>&#x0003C;</mo>" in found
    assert "costs $5." in found
    assert '<pre>x = "$y$"</pre>' in found
    assert 'href="02_next.html#part"' in found
    assert 'href="https://x.org/a.ipynb"' in found
    assert "script" not in found
    assert hooks.on_page_content("<p>$a$</p>", page("index.md")) == "<p>$a$</p>"


def test_a_picture_that_stands_alone_leads_to_itself(hooks):
    """And no link is put into a link, or around a picture in a sentence."""
    kept = '<p>an <img alt="icon" src="i.png"> icon</p><p><a href="a.png"><img alt="a" src="a.png"></a></p>'
    found = hooks.on_page_content(kept + '<p><img alt="b" src="figures/b.png" /></p>', page("index.md"))
    assert found == kept + '<p><a href="figures/b.png"><img alt="b" src="figures/b.png" /></a></p>'


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name[:2] for path in NOTEBOOKS])
def test_every_formula_can_be_drawn_and_every_notebook_that_is_named_is_there(hooks, path):
    words = [
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"
    ]
    for text in words:
        for part in hooks.CODE.split(text)[::2]:
            left = hooks.FORMULA.sub(hooks._drawn, part)
            assert "$" not in left, left
            assert "\\" not in re.sub(r"<math.*?</math>", "", left, flags=re.DOTALL)
    for name in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", " ".join(words)):
        assert (path.parent / name).exists(), name
