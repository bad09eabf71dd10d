"""The sentences of a report, read: every number in them is one that a small Dataset makes evident."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from rich.console import Console

import krause_dynamics as kd
from krause_dynamics import report
from tests.keywords import figures, results


def dataset(**changes):
    """Two sequences, two blocks, two heads, made by hand so that all means are short decimals."""
    both = np.ones((2, 1))  # sequences alike
    twice = np.ones(2)  # groups of tokens alike
    arrays = {
        "length": ("sequence", [12, 12]),
        "norm_ratio": (("sequence", "layer"), both * [1.0, 30.0, 4.0]),
        "mean_cosine": (("sequence", "layer", "tokens"), np.multiply.outer(both * [0.1, 0.2, 0.6], [0.0, 1.0])),
        "order_parameter": (("sequence", "layer", "tokens"), np.multiply.outer(both * [0.25, 0.5, 0.75], twice)),
        "effective_rank": (("sequence", "layer", "tokens"), np.multiply.outer(both * [9.0, 8.0, 7.0], twice)),
        "clusters": (
            ("sequence", "layer", "tokens", "radius"),
            np.array([[[[5, 3]] * 2] * 3, [[[-1, -1]] * 2] * 3]),  # a sequence too short to count is left out
        ),
        "sink_rate": (("block", "head", "eps"), [[[60.0, 50.0], [40.0, 10.0]], [[90.0, 70.0], [80.0, 30.0]]]),
        "first_token_score": (("sequence", "block", "head"), [[[0.01, 0.03], [0.2, 0.4]]] * 2),
        "strongest_key": (("sequence", "block", "head"), [[[0, 0], [0, 5]], [[0, -1], [0, 0]]]),
        "importance_first": (("sequence", "block", "head"), [[[0.1, 0.3], [0.5, 0.7]]] * 2),
        "entropy": (("sequence", "block", "head"), [[[0.9, 0.7], [0.5, 0.25]]] * 2),
    }
    meta = {"model": "hand", "layers": 2, "dtype": "float32", "sequences": 2, "attention_path": "eager"}
    coords = {
        "layer": [0, 1, 2], "tokens": ["all", "without_first"], "radius": [0.5, 0.8], "block": [1, 2], "head": [0, 1],
        "eps": [0.1, 0.3],
    }  # fmt: skip
    return xarray.Dataset(arrays | changes, coords=coords, attrs={"meta": json.dumps(meta)})


def test_findings_word_by_word():
    assert report.findings(dataset()) == [
        "Tokens other than the first are most alike after layer 2: mean cosine 0.60; it is 0.10 at the embedding and "
        "0.60 after the last block.",
        "The first token is largest after layer 1: 30 times the median norm.",
        "Sink_1^0.3 = 40.0 %: the first token is a sink in that share of (sequence, block, head), at 12 tokens.",
        "Mean score of the Krause authors 0.160; 1 of 2 blocks lie above their threshold 0.05.",
        "In 86 % of (sequence, block, head) no token receives more attention than the first.",  # 6 of the 7 known
    ]


@pytest.mark.parametrize(("strongest", "share"), [(0, 100), (3, 0)])
def test_the_share_of_heads_that_prefer_the_first_token(strongest, share):
    keys = (("sequence", "block", "head"), np.full((2, 2, 2), strongest))
    assert report.findings(dataset(strongest_key=keys))[-1].startswith(f"In {share} % of")


def test_findings_at_another_threshold_and_of_sequences_of_several_lengths():
    """Half of (60 + 40 + 90 + 80) / 4 at eps = 0.1; nothing is said of strongest keys where none is known."""
    none = (("sequence", "block", "head"), np.full((2, 2, 2), -1))
    lines = report.findings(dataset(strongest_key=none, length=("sequence", [12, 64])), eps=0.12)
    assert len(lines) == 4
    assert lines[2].startswith("Sink_1^0.1 = 67.5 %")
    assert "at 12 to 64 tokens" in lines[2]


def test_the_table_row_by_row():
    table = report.layer_table(dataset())
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [column.header.replace("\n", " ") for column in table.columns] == [
        "layer", "R all", "R rest", "cosine rest", "rank rest", "clusters rest", "norm of first", "sink rate",
        "attn to first", "entropy",
    ]  # fmt: skip
    assert rows == [
        ("0", "0.250", "0.250", "0.100", "9.0", "3.0", "1.0", "-", "-", "-"),
        ("1", "0.500", "0.500", "0.200", "8.0", "3.0", "30.0", "30 %", "20 %", "0.80"),
        ("2", "0.750", "0.750", "0.600", "7.0", "3.0", "4.0", "50 %", "60 %", "0.38"),
    ]
    assert table.title == "hand: 2 blocks x 2 heads, float32 weights; 2 sequences of 12 tokens"
    assert [
        cells[0] for cells in zip(*(c.cells for c in report.layer_table(dataset(), rows=2).columns), strict=True)
    ] == [
        "0",
        "2",
    ]


def test_the_legend_names_the_values_at_which_the_table_counts():
    """A chord of 0.5 is an angle of 2 arcsin(1/4) = 29 degrees."""
    text = "\n".join(report.legend(dataset(), radius=0.4, eps=0.1))
    assert "within 29 degrees" in text
    assert "more than 10 % of the attention" in text
    assert "the weights that the model returns" in text


def test_a_report_is_the_table_its_legend_and_the_findings():
    console = Console(width=200)
    with console.capture() as printed:
        report.print_report(dataset(), console)
    text = printed.get()
    assert "hand: 2 blocks x 2 heads" in text
    assert "0.250" in text  # a number of the table
    for line in (*report.legend(dataset()), *report.findings(dataset())):
        assert line[:60] in text


def test_the_nearest_threshold_and_radius_stand_for_those_asked_for():
    def cells(**chosen):
        return [list(column.cells) for column in report.layer_table(dataset(), **chosen).columns]

    assert cells(radius=0.55, eps=0.12) == cells(radius=0.5, eps=0.1) != cells(radius=0.8, eps=0.3)


def test_a_stored_analysis_is_told_without_torch(tmp_path):
    """In a process where torch cannot be imported: sentences, the table and the page."""
    program = """if True:
        import sys

        class Without:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name="torch")

        sys.meta_path.insert(0, Without())
        from rich.console import Console
        import krause_dynamics as kd
        analysis = kd.datasets.load("smollm2")
        kd.report.print_report(analysis, Console())
        print(kd.report.write_html(analysis, "page.html").name)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(kd.__file__).parent.parent), "MPLBACKEND": "Agg"}
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Tokens other than the first are most alike" in done.stdout
    assert "cannot be listed here without torch" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_first_token_that_does_not_stand_out_is_not_called_largest():
    ratio = figures.analysis()["norm_ratio"] * 0 + np.linspace(0.5, 1.5, 5)
    told = report.findings(figures.analysis().assign(norm_ratio=ratio))
    assert "The first token stands out in no layer: at most 1.5 times the median norm." in told


def test_further_results_in_a_sentence():
    """Each number is worked out here from arrays of few values."""
    forecast = results.forecast()
    forecast["contraction"][:] = np.array([[0.5, 1.0, 1.5, 1.0], [0.75, 1.0, 1.25, 1.0]])[:, None]
    forecast["clusters"][:] = [[2, 4, np.nan], [5, 6, np.nan]]
    forecast["winning_mode"][:] = np.nan
    words = "Predicted and measured: contraction of a block 1.00 and 1.00 (correlation over blocks 1.00)"
    assert kd.describe(forecast).lines == (f"{words}, clusters of tokens 3.0 and 5.5; means over sequences.",)
    confidence = results.confidence()
    for name, value in (
        ("share_theorem", 0.25),
        ("share_separated", 0.5),
        ("share_near_centroid", 0.3),
        ("distance", 4),
    ):
        confidence[name][:] = value
    (line,) = kd.describe(confidence).lines
    assert line.startswith("25.0 % of (sequence, block, head, token) satisfy both")
    assert all(part in line for part in ("50.0 % are of one of several", "30.0 % have their key", "lie 4.0 sigma"))
    branches = results.branches()
    branches["importance_first"][:] = np.reshape([0.2, 0.4, 0.3], (3, 1, 1, 1))
    branches["even_importance_first"][:] = np.reshape([0.1, 0.8, 0.1], (3, 1, 1, 1))
    branches["gate"][:] = np.reshape([0.75, 0.25, 1.0], (3, 1, 1))
    shares = (
        "softmax gives it 2.00 times as much and has 75 % of the gate; krause gives it 0.50 times as much and has 25 %"
    )
    assert f"{shares} of the gate; mixed gives it 3.00 times as much." in kd.describe(branches).lines[0]
    (line,) = kd.describe(results.tracks()).lines
    # Two of three are there in all layers? Sizes are 2 2 1, 2 2 0 and 0 2 3: one is; the largest is the last one.
    assert line.startswith(
        "3 clusters were followed, 1 of them through all layers; the largest has 3 of 6 tokens after"
    )
    assert "layer 2. At its largest that is:  d |  e." in line
    pairs = results.pairs()
    pairs["cross"]["strongest_importance"][:] = 0.5
    pairs["cross"]["place_by_quarter"][:] = [0.1, 0.2, 0.3, 0.9]
    (line,) = kd.describe(pairs).lines
    assert "receives 50 % of a head's cross-attention (even: 20 %)" in line
    assert "looks at place 0.10 of the sources, the last at 0.90" in line


def test_a_page_has_a_section_and_a_file_for_each_further_result(tmp_path, light_pictures):
    given = [results.forecast(), results.pairs()]
    files = report.write_page(figures.analysis(), tmp_path / "a.html", {}, beside=given)
    names = ["a.html", "a.csv", "a.nc", "a_forecast.nc", "a_encoder.nc", "a_decoder.nc", "a_cross.nc"]
    assert [path.name for path in files] == names
    text = files[0].read_text(encoding="utf-8")
    titles = ("Predicted beside measured", "Encoder and decoder", "Branches")
    assert [f"<h2>{title}</h2>" in text for title in titles] == [True, True, False]
    assert "predicted beside measured: <span" not in text  # nor among what was not measured
    assert "clusters followed: <span" in text
    xarray.testing.assert_identical(kd.open(tmp_path / "a_cross.nc"), given[1]["cross"])
    for wrong in ([figures.analysis()], [None]):
        with pytest.raises(ValueError, match=r"beside\[0\] must be a result of kd.checkpoints.forecast"):
            report.write_page(figures.analysis(), tmp_path / "b.html", {}, beside=wrong)
    with pytest.raises(TypeError, match="beside must be a list"):
        report.write_page(figures.analysis(), tmp_path / "b.html", {}, beside=given[0])
