"""Rows of `kd.report`: every number in words and tables is one that numpy finds in the Dataset."""

from __future__ import annotations

import json
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from krause_dynamics import report
from tests.keywords.figures import analysis
from tests.keywords.row import row


def highest(curve):
    """(layer of the maximum, the maximum) of a curve over layers."""
    return int(np.argmax(curve)), float(np.max(curve))


@row("kd.report.findings", "dataset", 0, 1, "layers and values of the maxima, scores and shares are those of numpy")
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        cosine = data["mean_cosine"].values[:, :, 1].mean(axis=0)
        layer, most = highest(cosine)
        loud, ratio = highest(data["norm_ratio"].values.mean(axis=0))
        score = data["first_token_score"].values.mean(axis=(0, 2))
        known = data["strongest_key"].values[data["strongest_key"].values >= 0]
        alike, norm, sinks, scores, strongest = report.findings(data)
        assert f"after layer {layer}: mean cosine {most:.2f}" in alike
        assert f"{cosine[0]:.2f} at the embedding and {cosine[-1]:.2f} after the last block" in alike
        assert f"after layer {loud}: {ratio:.0f} times the median" in norm
        assert "at 8 tokens" in sinks
        assert f"authors {score.mean():.3f}; {(score > 0.05).sum()} of 4 blocks" in scores
        assert strongest.startswith(f"In {100 * np.mean(known == 0):.0f} % of")
    assert report.findings(data.drop_vars("sink_rate")) == [alike, norm, scores, strongest]


@row("kd.report.findings", "eps", 0.3, 0.12, "the mean rate at the nearest threshold of the Dataset; 0.3 by default")
def _(first, second):
    rates = analysis()["sink_rate"].values
    for options, name, column in (({}, "0.3", 1), ({"eps": first}, "0.3", 1), ({"eps": second}, "0.1", 0)):
        words = report.findings(analysis(), **options)[2]
        assert words.startswith(f"Sink_1^{name} = {rates[..., column].mean():.1f} %")


def lines_of(table):
    """The cells, line by line."""
    return list(zip(*(column.cells for column in table.columns), strict=True))


def table_of(data, radius=1, eps=1):
    """All lines of `layer_table` by numpy, at positions of a radius and a threshold in the Dataset."""

    def over(name, *index):
        return data[name].values[(slice(None), slice(None), *index)].mean(axis=0)

    counts = data["clusters"].values[1:, :, 1, radius].mean(axis=0)  # the first sequence has no tokens left
    curves = [over("order_parameter", 0), over("order_parameter", 1), over("mean_cosine", 1)]
    ranks = [over("effective_rank", 1), counts, over("norm_ratio")]
    first, entropy = (np.append(np.nan, data[n].values.mean(axis=(0, 2))) for n in ("importance_first", "entropy"))
    rate = np.append(np.nan, data["sink_rate"].values[..., eps].mean(axis=1))
    for i in range(5):
        cells = [str(i), *(f"{c[i]:.3f}" for c in curves), *(f"{c[i]:.1f}" for c in ranks)]
        yield (*cells, f"{rate[i]:.0f} %", f"{100 * first[i]:.0f} %", f"{entropy[i]:.2f}") if i else (*cells, *"---")


@row("kd.report.layer_table", "dataset", 0, 1, "every cell is the mean over sequences and heads that numpy finds")
def _(first, second):
    for seed in (first, second):
        table = report.layer_table(analysis(seed))
        assert lines_of(table) == list(table_of(analysis(seed)))
        assert table.title == "hand: 4 blocks x 2 heads, float32 weights; 3 sequences of 8 tokens"
    without = analysis(second).drop_vars(["sink_rate", "importance_first", "entropy"])
    assert lines_of(report.layer_table(without)) == [line[:7] for line in table_of(analysis(second))]


@row("kd.report.layer_table", "rows", 2, 3, "so many layers, evenly spread from the first to the last; 11 by default")
def _(first, second):
    every = list(table_of(analysis()))
    assert lines_of(report.layer_table(analysis(), rows=first)) == every[::4]
    assert lines_of(report.layer_table(analysis(), rows=second)) == every[::2]
    assert lines_of(report.layer_table(analysis(), rows=99)) == every
    deep = analysis().isel(layer=[0, *[1, 2, 3, 4] * 10]).drop_vars(["importance_first", "sink_rate", "entropy"])
    shown = [line[0] for line in lines_of(report.layer_table(deep.assign_coords(layer=np.arange(41))))]
    assert shown == [str(layer) for layer in range(0, 41, 4)]


@row("kd.report.layer_table", "radius", 0.8, 0.45, "clusters at the nearest radius of the Dataset; 0.8 by default")
def _(first, second):
    for options, place in (({}, 1), ({"radius": first}, 1), ({"radius": second}, 0)):
        assert lines_of(report.layer_table(analysis(), **options)) == list(table_of(analysis(), radius=place))


@row("kd.report.layer_table", "eps", 0.3, 0.12, "sinks at the nearest threshold of the Dataset; 0.3 by default")
def _(first, second):
    for options, place in (({}, 1), ({"eps": first}, 1), ({"eps": second}, 0)):
        assert lines_of(report.layer_table(analysis(), **options)) == list(table_of(analysis(), eps=place))


@row("kd.report.legend", "dataset", "eager", "registry",
     "a line on each kind of column and on how attention was read; none of attention where it was not")  # fmt: skip
def _(first, second):
    paths = {first: "the weights that the model returns", second: "the attention registry of transformers"}
    for path, words in paths.items():
        data = analysis()
        data.attrs["meta"] = json.dumps(json.loads(data.attrs["meta"]) | {"attention_path": path})
        lines = report.legend(data)
        assert lines[-1].startswith(f"Attention was read through {words}")
        # Every heading of the table is explained: "R\nall" by the line on R.
        headings = {column.header.replace("\n", " ") for column in report.layer_table(data).columns}
        explained = " ".join(lines)
        assert all(f"{name.removesuffix(' rest').removesuffix(' all')}:" in explained for name in headings)
    states = [name for name, values in data.data_vars.items() if "block" not in values.dims]
    assert report.legend(data[states]) == lines[:6]


@row("kd.report.legend", "radius", 0.8, 1.02, "the angle of the nearest chord of the Dataset: 47 or 60 degrees")
def _(first, second):
    for options, angle in (({}, 47), ({"radius": first}, 47), ({"radius": second}, 60)):
        assert f"within {angle} degrees" in report.legend(analysis(), **options)[4]


@row("kd.report.legend", "eps", 0.3, 0.12, "the nearest threshold of the Dataset, in per cent; 30 by default")
def _(first, second):
    for options, percent in (({}, 30), ({"eps": first}, 30), ({"eps": second}, 10)):
        assert any(f"more than {percent} % of" in line for line in report.legend(analysis(), **options))


def printed(data, width=140):
    """What the report leaves on a console."""
    stream = StringIO()
    report.print_report(data, Console(file=stream, width=width))
    return stream.getvalue()


@row("kd.report.print_report", "dataset", 0, 1, "the cells of the table, the legend and the findings, in this order")
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        lines = [line.split() for line in printed(data, width=300).splitlines()]
        sentences = [*report.legend(data), *(f"- {line}" for line in report.findings(data))]
        wanted = [" ".join(cells) for cells in table_of(data)] + sentences
        found = [" ".join(words) for words in lines if " ".join(words) in wanted]
        assert found == wanted


@row("kd.report.print_report", "console", 60, 300, "written there and nowhere else, within the width of that console")
def _(first, second):
    outside = StringIO()
    for width in (first, second):
        with redirect_stderr(outside), redirect_stdout(outside):
            lines = printed(analysis(), width).splitlines()
        longest = max(len(line.rstrip()) for line in lines)
        assert longest <= width
    assert longest > first
    assert outside.getvalue() == ""
    with redirect_stdout(outside):
        report.print_report(analysis())
    assert "sink" in outside.getvalue(), "by default on the standard output"


def bar_of(label, *console):
    """What the deprecated bar draws on the standard error."""
    drawn = StringIO()
    with ExitStack() as stack:
        stack.enter_context(redirect_stderr(drawn))
        with pytest.warns(DeprecationWarning, match="pass progress=True"):
            bar = stack.enter_context(report.progress_bar(label, *console))
        bar(1, 2)
        bar(2, 2)
    return drawn.getvalue()


@row("kd.report.progress_bar", "label", "words", "others", "stands left of a bar that is full in the end")
def _(first, second):
    for label in (first, second):
        last = bar_of(label).strip().splitlines()[-1]
        assert last.split()[0].endswith(label)
        assert "100%" in last


@row("kd.report.progress_bar", "console", None, StringIO(), "no effect: nothing is drawn there, the bar is")
def _(first, second):
    for console in (first, Console(file=second)):
        assert "words" in bar_of("words", console)
    assert second.getvalue() == ""


@row("kd.report.token_count", "dataset", [12, 12, 12], [64, 12, 20], "the one length, or the shortest and the longest")
def _(first, second):
    assert report.token_count(analysis(length=("sequence", first))) == "12"
    assert report.token_count(analysis(length=("sequence", second))) == "12 to 64"
