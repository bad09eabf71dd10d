"""A page in a browser: its theme, its width, its words; and measures that nobody told it of."""

from __future__ import annotations

import json
import re
from html import escape

import numpy as np
import pytest
from PIL import Image

from krause_dynamics import report
from krause_dynamics.report import panels
from krause_dynamics.report.html import dark
from krause_dynamics.report.summary import not_measured
from tests.browsing import browse, browser, titled
from tests.keywords import results
from tests.keywords.figures import analysis, comparison, controlled, with_spectrum, with_tree

# What a page is measured by: its width, the smallest letters in pictures, and letters that leave their picture.
MEASURE = """<script>
let out = [], least = 1e9;
for (const svg of document.querySelectorAll(".pictures svg")) {
  const box = svg.getBoundingClientRect();
  if (!box.width) continue;
  for (const text of svg.querySelectorAll("text")) {
    const at = text.getBoundingClientRect();
    const over = [box.left - at.left, at.right - box.right, box.top - at.top, at.bottom - box.bottom];
    if (Math.max(...over) > 4) out.push(text.textContent.trim());
    least = Math.min(least, parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width);
  }
}
const page = document.documentElement.scrollWidth;
parent.document.title = JSON.stringify({page, screen: innerWidth, out, least});
</script>"""


@pytest.fixture(scope="module", params=["analysis", "comparison"])
def page(tmp_path_factory, request):
    """A page with all pictures that a page can have, of each kind."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    if request.param == "comparison":
        return report.write_comparison_page(comparison((10, 200, 3000)), path, {"seed": 0})[0]
    costly = {"spectrum": with_spectrum()["spectrum"], "merge_tree": with_tree()["merge_tree"]}
    data = controlled().assign({name: values.expand_dims(control=2) for name, values in costly.items()})
    further = [results.forecast(), results.confidence(), results.branches(), results.tracks(), results.pairs()]
    return report.write_html(data, path, {"seed": 0}, beside=further)


@browser
def test_the_console_of_the_browser_is_read(tmp_path):
    """A page that complains is noticed: without it the others would prove nothing."""
    (tmp_path / "bad.html").write_text("<script>nowhere()</script>")
    with pytest.raises(AssertionError, match="nowhere is not defined"):
        browse(tmp_path, tmp_path / "bad.html", "--dump-dom")


@browser
@pytest.mark.parametrize(
    ("scheme", "paper", "ink"), [("1", (255, 255, 255), (27, 31, 36)), ("0", (15, 20, 25), (230, 237, 243))]
)
def test_a_page_follows_the_theme_of_its_reader(page, tmp_path, scheme, paper, ink):
    shot = tmp_path / "shot.png"
    browse(
        tmp_path,
        page,
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=390,1600",
        f"--screenshot={shot}",
    )
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (1600, 390, 3)
    assert tuple(pixels[2, 2]) == paper
    assert (pixels == ink).all(-1).sum() > 300  # letters, and the axes of pictures


@browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_the_screen_and_its_pictures_are_legible(page, tmp_path, width):
    # A window of Chromium is 500 wide at least; a frame may be as narrow as a telephone.
    inside = escape(page.read_text().replace("</body>", MEASURE + "</body>"))
    measured = tmp_path / "measured.html"
    measured.write_text(
        f'<title></title><iframe width="{width}" height="900" frameborder="0" srcdoc="{inside}"></iframe>'
    )
    dumped = browse(tmp_path, measured, "--window-size=1400,1000", "--dump-dom")
    found = titled(dumped)
    assert found["page"] <= found["screen"] == width
    assert found["out"] == []
    assert found["least"] >= 8


def test_a_page_needs_no_other_file(page):
    text = page.read_text()
    assert "<script" not in text
    links = re.findall(r"""(?:src|href)=["'](?!#|data:)([^"']*)""", text)
    assert set(links) <= {"page.csv", "page.nc"}  # beside a comparison lie its numbers, to be downloaded
    assert not re.search(r"@import|url\((?!#)", text)


def test_names_of_pictures_are_told_apart(page):
    names = re.findall(r'\bid="([^"]*)"', page.read_text())
    assert len(names) == len(set(names)) > 100


def test_a_measure_that_nobody_told_it_of_is_drawn_and_listed(tmp_path):
    beauty = np.broadcast_to([0.25, 0.5, 0.75, 0.5, 0.125], (3, 5))
    data = analysis().assign(beauty=(("sequence", "layer"), beauty, {"long_name": "beauty of <tokens>"}))
    meta = json.loads(data.attrs["meta"]) | {"model": "<script>alert(1)</script>"}
    few = ["beauty", "clusters", "length", "norm_ratio", "mean_cosine", "order_parameter", "effective_rank"]
    report.write_html(data[few].assign_attrs(meta=json.dumps(meta)), tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "<script" not in text  # names from elsewhere are words
    assert "<h3>Beauty of &lt;tokens&gt;</h3><svg" in text
    (line,) = re.findall(r'<tr><th[^>]*title="beauty">(.*)</tr>', text)
    cells = ["0.25", "0.75", "0.125", "0.125 at 4", "0.75 at 2"]
    assert line == f"beauty of &lt;tokens&gt;</th><td>layer</td>{''.join(f'<td>{cell}</td>' for cell in cells)}"


def test_what_was_not_measured_is_said_with_the_reason():
    meta = json.loads(analysis().attrs["meta"]) | {"stopped": "interrupted", "blocks_without_attention": [2, 3]}
    data = analysis().assign_attrs(meta=json.dumps(meta))
    attention = [name for name, values in data.data_vars.items() if "block" in values.dims]
    for given, words in (
        (data, ["stopped: interrupted", "attention of blocks 2, 3", "['default', 'spectrum']", "controls="]),
        (data.drop_vars(attention), ["attention='statistics' records them"]),
    ):
        missing = str(not_measured(given)).replace("\\", "")
        assert all(word in missing for word in words)


def test_colours_turn_light_for_dark_and_keep_their_hue():
    assert dark("000000") == "f2f2f2"
    assert dark("ffffff") == "262626"
    red, green, blue = (int(dark("800000")[i : i + 2], 16) for i in (0, 2, 4))
    assert red > green == blue


def test_a_merge_tree_is_of_the_first_sequence_that_has_one():
    """Sequences of two tokens have none: without its first, one is left; they ended the page in an error."""

    class Plots:
        @staticmethod
        def merge_tree(dataset, ax, sequence):
            drawn_of.append(sequence)

    drawn_of: list[int] = []
    data = with_tree()
    trees = data["merge_tree"].copy(deep=True)
    for missing, expected in ((0, [0]), (1, [1]), (3, [])):
        trees[:missing] = np.nan
        drawn_of.clear()
        for panel in panels.drawn(data.assign(merge_tree=trees)):
            if panel.shows == ("merge_tree",):
                panel.draw(Plots, data.assign(merge_tree=trees), None)
        assert drawn_of == expected


def test_a_folder_that_is_not_there_is_made(tmp_path):
    found = report.write_figures(analysis(), tmp_path / "new" / "folder", {})
    assert found
    assert all(path.is_file() for path in found)
