"""The site as it was built (``make pages``): links, search, a telephone, the dark."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fontTools.ttLib import TTFont

from tests.browsing import browse, browser, titled

SITE = Path(__file__).parents[1] / "build" / "site"
PAGES = sorted(SITE.rglob("*.html"))
pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built: make pages")
# One of each kind; the browser shows them all at once.
SHOWN = (
    "index",
    "first_ten_minutes",
    "theory",
    "how_to/choose",
    "how_to/extend",
    "how_to/questions",
    "how_to/tables",
    "will_not_do",
    "by_hand",
    "figures/theory",
    "evidence/index",
    "gallery/index",
    "benchmarks/checkpoints",
    "reference/kd.nn",
    "notebooks/01_first_particles",
)
WIDTH = 390  # of a telephone
MEASURE = """<script>addEventListener("load", () => setTimeout(() => parent.postMessage({
  page: location.pathname, wide: document.documentElement.scrollWidth, letters: parseFloat(getComputedStyle(
  document.querySelector("article p, .md-content p")).fontSize), back: getComputedStyle(document.body).backgroundColor,
  over: [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 &&
    !e.closest("pre, table, .md-typeset__scrollwrap, .jp-OutputArea, .jp-Notebook, svg, math, .md-code__content")
    ).map(e => e.outerHTML.slice(0, 80)).slice(0, 3)}, "*"), 300))</script>"""  # fmt: skip


class Page(HTMLParser):
    """Names that can be pointed at, and what a page points at."""

    def __init__(self, path):
        super().__init__()
        self.names, self.links, self.loads = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe") and given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("href") and given.get("rel") in ("stylesheet", "icon"):
            self.loads.append(given["href"])


read = cache(Page)


def target(page, link):
    """The file that a link of a page means, and the place in it; ``None`` for what lies elsewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


def test_no_link_is_dead():
    dead = []
    for page in PAGES:
        for link in [*read(page).links, *read(page).loads] if page.name != "404.html" else []:  # of a server's root
            path, place = target(page, link) or (page, "")
            named = not place or path.suffix != ".html" or (path.is_file() and place in read(path).names)
            if not (path.is_file() and named):
                dead.append((page.relative_to(SITE), link))
    assert dead == []


def test_nothing_is_fetched_from_elsewhere():
    """Pages open from a folder, without a network; the outputs of notebooks may name scripts that nothing needs."""
    foreign = {
        (str(page.relative_to(SITE)), link)
        for page in PAGES
        if page.parent.name != "notebooks"
        for link in read(page).loads
        if urlsplit(link).scheme in ("http", "https") or link.startswith("//")
    }
    assert foreign == set()


def test_no_page_shows_markup():
    """Of Sphinx in docstrings, or escaped twice."""
    words = (":func:", ":class:", ":mod:", ":meth:", "&amp;gt;", "&amp;lt;", "&amp;amp;")
    shown = {
        (str(page.relative_to(SITE)), word)
        for page in PAGES
        if page.parent.name != "notebooks"
        for word in words
        if word in page.read_text(encoding="utf-8")
    }
    assert shown == set()


def test_the_font_of_formulas_has_every_letter_and_the_table_that_sets_indices():
    """Telephones have no font of mathematics; ``<mi>x</mi>`` is drawn as the italic letter of mathematics."""
    with TTFont(SITE / "assets" / "formulas.woff") as font:
        known, tables = set(font.getBestCmap()), set(font.keys())
    assert "MATH" in tables
    used = {
        letter
        for page in PAGES
        for formula in re.findall(r"<math.*?</math>", page.read_text(encoding="utf-8"), re.DOTALL)
        for letter in unescape(re.sub(r"<[^>]*>", "", formula))
        if not letter.isspace()
    }
    assert len(used) > 50
    assert {letter for letter in used if ord(letter) not in known} == set()
    assert set(range(0x1D434, 0x1D468)) - {0x1D455} | {0x210E} <= known  # italic A to z; h has its own place


@pytest.fixture
def probes():
    """Copies of some pages that say how wide they are, beside the pages; gone afterwards."""
    made = []
    for name in SHOWN:
        page = SITE / f"{name}.html"
        assert page.is_file(), name
        probe = page.with_name(f"{page.stem}.probe.html")
        probe.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE + "</body>"), encoding="utf-8")
        made.append(probe)
    yield made
    for probe in made:
        probe.unlink()


@browser
@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)])
def test_pages_fit_a_telephone_by_day_and_by_night(scheme, dark, probes, tmp_path):
    frames = "".join(f'<iframe width="{WIDTH}" height="800" src="{probe.as_uri()}"></iframe>' for probe in probes)
    listen = (
        "<title></title><script>const told = []; addEventListener('message', e => { if (e.data.page)"
        " { told.push(e.data); document.title = JSON.stringify(told); } })</script>"
    )
    (tmp_path / "all.html").write_text(listen + frames)
    options = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1400,1000", "--dump-dom")
    told = titled(browse(tmp_path, tmp_path / "all.html", *options, "--virtual-time-budget=20000"))
    assert len(told) == len(probes)
    for page in told:
        assert page["wide"] <= WIDTH, page
        assert page["over"] == [], page
        assert page["letters"] >= 12, page
        light = sum(map(float, page["back"].strip("rgba()").split(",")[:3])) > 3 * 128
        assert light is not dark, page


SEARCH = """<script>addEventListener("load", () => setTimeout(() => {
  const field = document.querySelector("[data-md-component=search-query]");
  field.focus(); field.value = "hegselmann"; field.dispatchEvent(new Event("keyup", {bubbles: true}));
  setTimeout(() => document.title = JSON.stringify(
    [...document.querySelectorAll(".md-search-result__item a")].map(a => a.href)), 3000); }, 1000))</script>"""


@browser
def test_search_finds_pages_of_a_folder(tmp_path):
    """Without a server and without a network."""
    probe = SITE / "search.probe.html"
    text = (SITE / "index.html").read_text(encoding="utf-8")
    try:
        probe.write_text(text.replace("</body>", SEARCH + "</body>"), encoding="utf-8")
        found = titled(browse(tmp_path, probe, "--dump-dom", "--virtual-time-budget=20000"))
    finally:
        probe.unlink()
    assert any("kd.opinions.html" in link for link in found) or any("theory" in link for link in found), found
