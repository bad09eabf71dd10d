"""Rows of `kd.report` for pages and rows of numbers: what numpy finds in the Dataset stands there."""

from __future__ import annotations

import json
import re
import tempfile
from functools import cache
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray

from krause_dynamics import report
from tests.drawn_lightly import undrawn
from tests.keywords import results
from tests.keywords.figures import analysis, controlled
from tests.keywords.row import row

STATES = [name for name, values in analysis().data_vars.items() if "block" not in values.dims]
DATA = (analysis(0)[STATES], controlled())
PARAMETERS = ({"seed": 3}, {"of": [1, None]})


@row("kd.report.check_page", "path", "a.html", "b.HTML", "answered as a path; other endings and folders are refused")
def _(first, second):
    with tempfile.TemporaryDirectory() as folder:
        for name in (first, second):
            assert report.check_page(str(Path(folder) / name)) == Path(folder) / name
            with pytest.raises(ValueError, match=r"report must end in \.html, received '.*pdf'"):
                report.check_page(Path(folder) / f"{name}.pdf")
            with pytest.raises(ValueError, match="report must lie in a folder that exists"):
                report.check_page(Path(folder) / "nowhere" / name)
        assert list(Path(folder).iterdir()) == []


@cache  # pictures take long to draw: the rows read the same two pages
def pages(which):
    """{name: bytes} of what `write_page` leaves, and the names that it returns."""
    with tempfile.TemporaryDirectory() as folder, undrawn():
        path = Path(folder) / ("a.html" if which else "b.html")
        paths = report.write_page(DATA[which], path, PARAMETERS[which])
        assert {one.parent for one in paths} == {Path(folder)}
        return {one.name: one.read_bytes() for one in Path(folder).iterdir()}, [one.name for one in paths]


def cells(page):
    """Numbers of the lines of the table over layers."""
    (table,) = re.findall(r"<h2>Layer by layer</h2>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", line) for line in table.strip().splitlines()]


@row("kd.report.write_page", "dataset", 0, 1,
     "means over sequences stand in the table and the CSV, the Dataset in the netCDF; controls beside")  # fmt: skip
def _(first, second):
    for which in (first, second):
        files, (page, rows, data) = pages(which)
        given = report.findings(DATA[which])
        text = unescape(files[page].decode())
        assert all(line in text for line in given)
        one = DATA[which].isel(control=0) if which else DATA[which]
        assert [line[1] for line in cells(text)] == [
            f"{value:.3f}" for value in one["order_parameter"].values[:, :, 0].mean(axis=0)
        ]
        assert ("Under controls" in text) == bool(which)
        assert text.count("<figure>") == (13 if which else 7)
        with tempfile.TemporaryDirectory() as folder:
            for name in (rows, data):
                (Path(folder) / name).write_bytes(files[name])
            with xarray.open_dataset(Path(folder) / data, engine="h5netcdf") as kept:
                xarray.testing.assert_identical(kept.load(), DATA[which])
            assert set(pd.read_csv(Path(folder) / rows)["measure"]) >= {"order_parameter", "clusters"}


@row("kd.report.write_page", "path", 0, 1, "page, CSV and netCDF of that name are written, and the page links to both")
def _(first, second):
    for which, name in ((first, "b"), (second, "a")):
        files, paths = pages(which)
        assert paths == [f"{name}.html", f"{name}.csv", f"{name}.nc"]
        assert set(files) == set(paths)
        assert re.findall(r'<a href="([^"]*)"', files[paths[0]].decode()) == paths[1:]


@row("kd.report.write_page", "parameters", 0, 1, "the page says these and the metadata of the analysis")
def _(first, second):
    for which in (first, second):
        files, (page, *_) = pages(which)
        assert made(files[page].decode()) == PARAMETERS[which] | {"analysis": json.loads(DATA[which].attrs["meta"])}
    assert PARAMETERS == ({"seed": 3}, {"of": [1, None]})  # they are left as they were


def made(page):
    """What a page says of how it was made."""
    return json.loads(unescape(re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)[0]))


@cache
def alone(which, data=0, name="page.html"):
    """The page that `write_html` writes of one of the two datasets, with or without parameters."""
    with tempfile.TemporaryDirectory() as folder, undrawn():
        path = Path(folder) / name
        assert report.write_html(DATA[data], path, *((PARAMETERS[data],) if which else ())) == path
        assert [one.name for one in Path(folder).iterdir()] == [name]
        return path.read_text()


@row("kd.report.write_html", "dataset", 0, 1, "the page of `write_page` without links")
def _(first, second):
    for which, name in ((first, "b"), (second, "a")):
        together = pages(which)[0][f"{name}.html"].decode()
        assert alone(1, which) == re.sub(r"<p>Numbers beside this page.*?</p>\n", "", together)


@row("kd.report.write_html", "path", "a.html", "b.html", "that file alone is written, and its path returned")
def _(first, second):
    assert alone(1, 0, first) == alone(1, 0, second)


@row("kd.report.write_html", "parameters", 0, 1, "the page says these; by default the metadata of the analysis only")
def _(first, second):
    meta = {"analysis": json.loads(DATA[0].attrs["meta"])}
    assert made(alone(first)) == meta
    assert made(alone(second)) == PARAMETERS[0] | meta


@cache
def with_further(number):
    """Names of the files and both pages of states alone, with so many further results beside."""
    few = DATA[0][["length", "order_parameter", "norm_ratio", "clusters"]]
    with tempfile.TemporaryDirectory() as folder, undrawn():
        further = [results.confidence(seed) for seed in range(number)]
        page, *files = report.write_page(few, Path(folder) / "a.html", {}, beside=further)
        texts = page.read_text(), report.write_html(few, page, {}, beside=further).read_text()
        return [path.name for path in files], [unescape(text) for text in texts]


@row("kd.report.write_page", "beside", 0, 1, "a section of each, in its words, and a file")
@row("kd.report.write_html", "beside", 0, 1, "a section of each, in its words, before the table")
def _(first, second):
    for number in (first, second):
        files, texts = with_further(number)
        assert files[2:] == ["a_confidence.nc"] * number
        for text in texts:
            sentence = report.beside.kind_of(results.confidence()).sentence(results.confidence())
            assert (sentence in text) == bool(number)
            assert ("<h2>Bounded confidence</h2>" in text.partition("<h2>Layer by layer</h2>")[0]) == bool(number)


def rows_of(data, name="a.csv"):
    """The rows that `write_csv` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = report.write_csv(data, str(Path(folder) / name))
        assert path == Path(folder) / name
        assert [one.name for one in Path(folder).iterdir()] == [name]
        return pd.read_csv(path)


@row("kd.report.write_csv", "dataset", 0, 1, "means over sequences and heads; counts where there are tokens")
def _(first, second):
    for seed in (first, second):
        data = analysis(seed)
        rows = rows_of(data)
        entropy = rows[rows["measure"] == "entropy"]
        np.testing.assert_allclose(entropy["mean"], data["entropy"].values.mean(axis=(0, 2)))
        np.testing.assert_array_equal(entropy["block"], [1, 2, 3, 4])
        counts = rows[(rows["measure"] == "clusters") & (rows["tokens"] == "all") & (rows["radius"] == 0.8)]
        np.testing.assert_allclose(counts["mean"], data["clusters"].values[1:, :, 0, 1].mean(axis=0))
        assert "strongest_key" not in set(rows["measure"])
    both = rows_of(controlled())
    entropy = both[(both["measure"] == "entropy") & (both["control"] == "random_weights")]
    np.testing.assert_allclose(entropy["mean"], analysis(1)["entropy"].values.mean(axis=(0, 2)))


@row("kd.report.write_csv", "path", "a.csv", "b.csv", "the file of that name alone is written, and its path returned")
def _(first, second):
    pd.testing.assert_frame_equal(rows_of(analysis(), first), rows_of(analysis(), second))
