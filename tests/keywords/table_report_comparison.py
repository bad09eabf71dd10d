"""Rows of reports of a comparison: numbers of the table are means over depth of the comparison."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import tempfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console

import krause_dynamics as kd
from tests.drawn_lightly import coarse, undrawn
from tests.keywords.figures import comparison
from tests.keywords.row import row

report = kd.report


def equal_the_comparison(data, rows):
    """Means over depth and sequences of tokens without the first, at chord 0.8 and threshold 0.3."""
    found = {(line["quantity"], line["case"]): line for line in rows}
    assert {name for name, _ in found} == {str(name) for name in data if f"{name}_difference" in data}
    for case in data.case.values:
        one = data.sel(case=case)
        known = {
            "order_parameter": one.order_parameter.sel(tokens="without_first").mean(),
            "clusters": one.clusters.sel(tokens="without_first", radius=0.8).mean(),
            "sink_rate": one.sink_rate.sel(eps=0.3).mean(),
            "entropy": one.entropy.mean(),
        }
        for name, value in known.items():
            line = found[name, str(case)]
            np.testing.assert_allclose(float(line["mean"]), value)
            base = float(found[name, str(data.case.values[0])]["mean"])
            np.testing.assert_allclose(float(line["difference"]), value - base, atol=1e-12)
            assert float(line["low"]) <= float(line["difference"]) <= float(line["high"])


@row("kd.report.comparison_rows", "comparison", "ab", "xyz", "a row for each quantity and case: means over depth")
def rows(first, second):
    for names in (first, second):
        data = comparison(tuple(names))
        equal_the_comparison(data, report.comparison_rows(data))


def printed(names, **options):
    console = Console(width=200, record=True, file=io.StringIO(), **options)
    report.print_comparison(comparison(names), console)
    return console.export_text()


@row("kd.report.print_comparison", "comparison", ("a", "b"), (10, 20, 30), "a column for each case, a line a quantity")
def compared(first, second):
    for names in (first, second):
        text = printed(names)
        header = next(line for line in text.splitlines() if "quantity" in line)
        assert header.split() == ["quantity", *map(str, names)]
        mean = comparison(names).entropy.isel(case=0).mean()
        assert text.split("entropy")[1].split()[0] == f"{float(mean):.3g}"


@row("kd.report.print_comparison", "console", 0, 1, "the console that is given gets all of it")
def console(first, second):
    for number in (first, second):
        assert "interval" in printed(("a", str(number)))
    with redirect_stdout(io.StringIO()) as out:
        report.print_comparison(comparison(("a", "b")))
    assert "interval" in out.getvalue()


@cache  # pictures take long to draw: the rows read the same two folders
def left(name, names, parameters):
    """{path: bytes} of what `write_comparison` leaves in and beside a folder of that name, and what it returns."""
    with tempfile.TemporaryDirectory() as above, coarse():
        folder = Path(above) / name
        folder.mkdir()
        paths = report.write_comparison(comparison(names), folder, dict(parameters))
        found = {one.relative_to(above).as_posix(): one.read_bytes() for one in Path(above).rglob("*") if one.is_file()}
        return found, [one.relative_to(above).as_posix() for one in paths]


LEFT = (("one", ("a", "b"), (("seed", 1),)), ("two", (1, 2), (("command", "x"),)))


@row("kd.report.write_comparison", "comparison", 0, 1, "a file of rows equals the comparison")
def write_compared(first, second):
    import xarray

    for which in (first, second):
        (name, names, _), (files, paths) = LEFT[which], left(*LEFT[which])
        data = comparison(names)
        equal_the_comparison(data, list(csv.DictReader(io.StringIO(files[f"{name}/comparison.csv"].decode()))))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a.nc").write_bytes(files[f"{name}/comparison.nc"])
            with xarray.open_dataset(Path(folder) / "a.nc") as stored:
                np.testing.assert_allclose(stored.entropy, data.entropy)
        assert (f"{name}/emergence.png" in paths) == isinstance(names[0], int)


@row("kd.report.write_comparison", "folder", 0, 1, "where all of it goes, and nothing elsewhere")
def write_folder(first, second):
    for which in (first, second):
        files, paths = left(*LEFT[which])
        assert set(paths) == {name for name in files if not name.endswith(".json")}
        assert {name.partition("/")[0] for name in files} == {LEFT[which][0]}


@row("kd.report.write_comparison", "parameters", 0, 1, "beside each figure, with the metadata")
def write_parameters(first, second):
    for which in (first, second):
        name, names, given = LEFT[which]
        stored = json.loads(left(*LEFT[which])[0][f"{name}/difference.json"])
        assert {key: stored[key] for key, _ in given} == dict(given)
        assert stored["comparison"]["reference"] == str(names[0])


@row("kd.report.write_comparison", "ending", "pdf", "svg", "every figure is of that kind, the numbers beside as ever")
def write_ending(first, second):
    for ending in (first, second):
        with tempfile.TemporaryDirectory() as folder, coarse():
            paths = report.write_comparison(comparison(), folder, {}, ending=ending)
            assert {"comparison.nc", "comparison.csv", "table.txt"} < {path.name for path in paths}
            assert {path.suffix for path in paths} == {".nc", ".csv", ".txt", f".{ending}"}


@row("kd.report.comparison_findings", "comparison", ("a", "b"), tuple("abcdef"),
     "differences of the rows in words; of many cases in detail the last alone")  # fmt: skip
def findings(first, second):
    for names in (first, second):
        data = comparison(names)
        told, by = report.comparison_findings(data), {}
        for line in report.comparison_rows(data):
            by.setdefault(line["case"], {})[line["quantity"]] = line
        assert list(told) == list(names[1:])
        for case, lines in told.items():
            apart = sum(line["low"] > 0 or line["high"] < 0 for line in by[case].values())
            assert lines[-1].startswith(f"{apart} of {len(by[case])} measures differ")
            assert (len(lines) > 1) == (len(names) == 2 or case == names[-1])
        line, base = by[case]["order_parameter"], by["a"]["order_parameter"]
        words = next(one for one in lines if one.startswith("Order_parameter"))
        assert f" {line['mean']:.3g} against {base['mean']:.3g} ({line['difference']:+.2g}, " in words
        kind = "higher" if line["low"] > 0 else "lower" if line["high"] < 0 else "no difference that"
        assert kind in words


@cache  # pictures take long to draw: the rows read the same two pages
def pages(names, seed):
    """{name: bytes} of what `write_comparison_page` leaves, and the names that it returns."""
    with tempfile.TemporaryDirectory() as folder, undrawn():
        paths = report.write_comparison_page(comparison(names), Path(folder) / f"{names[0]}.html", {"seed": seed})
        assert {one.parent for one in paths} == {Path(folder)}
        return {one.name: one.read_bytes() for one in Path(folder).iterdir()}, [one.name for one in paths]


PAGES = ((("a", "b"), 3), ((10, 200), 4))


@row("kd.report.write_comparison_page", "comparison", 0, 1,
     "its rows stand in the table, in sentences and in the CSV; steps of a training get more pictures")  # fmt: skip
def page_of(first, second):
    for which in (first, second):
        files, (page, rows, _) = pages(*PAGES[which])
        data, text = comparison(PAGES[which][0]), html.unescape(files[page].decode())
        equal_the_comparison(data, list(csv.DictReader(io.StringIO(files[rows].decode()))))
        (line,) = re.findall(r'title="entropy">.*?</th>(.*?)</tr>', text)
        assert line.startswith(f"<td>{float(data.entropy.isel(case=0).mean()):.3g}</td><td>")
        assert all(one in text for lines in report.comparison_findings(data).values() for one in lines)
        assert ("Over training" in text) == bool(which)


@row("kd.report.write_comparison_page", "path", 0, 1, "page, CSV and netCDF of that name, and the page links to both")
def page_path(first, second):
    for which, name in ((first, "a"), (second, "10")):
        files, paths = pages(*PAGES[which])
        assert paths == [f"{name}.html", f"{name}.csv", f"{name}.nc"]
        assert set(files) == set(paths)
        assert re.findall(r'<a href="([^"]*)"', files[paths[0]].decode()) == paths[1:]


@row("kd.report.write_comparison_page", "parameters", 0, 1, "the page says these and the metadata of the comparison")
def page_parameters(first, second):
    for which in (first, second):
        files, (page, *_) = pages(*PAGES[which])
        said = json.loads(html.unescape(re.findall(r"<pre>(.*?)</pre>", files[page].decode(), re.DOTALL)[0]))
        assert said["seed"] == PAGES[which][1]
        assert said["comparison"]["reference"] == str(PAGES[which][0][0])
