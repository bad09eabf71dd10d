"""Rows of `kd.theory_table`: checks, their numbers and their lines in the report, with checks made up for this."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from krause_dynamics import theory_table
from tests.keywords.row import row


def numbers(predicted=(1.0, 2.0), measured=(1.0, 2.5), note=""):
    return theory_table.Comparison(np.array(predicted), np.array(measured), note)


def made_check(**changes):
    """A check that is off by 0.5, a quarter of the prediction."""
    given = {
        "name": "made", "section": 3, "result": "made up", "source": "nobody", "setting": "n = 2", "tolerance": 1.0,
        "kind": "absolute", "slow": False, "disputed": "", "function": numbers,
    }  # fmt: skip
    return theory_table.Check(**{**given, **changes})


def made_row(**changes):
    check = made_check()
    given = {"check": check, "comparison": numbers(), "error": 0.5, "passed": True, "seconds": 2.0, "note": ""}
    return theory_table.Row(**{**given, **changes})


def report_of(line):
    """Head of the report of one row of the table, and the cells of its line."""
    head, _, table = theory_table.report.markdown([line]).partition("##")
    return head, [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]


def run_among(checks, **options):
    """Names of the rows that `run` gives when these are the only checks."""
    with patch.dict(theory_table.CHECKS, {check.name: check for check in checks}, clear=True):
        return [line.check.name for line in theory_table.run(**options)]


@row("kd.theory_table.Check", "name", "first", "second", "the name by which `run` finds the check and calls its row")
def _(first, second):
    checks = [made_check(name=first), made_check(name=second)]
    assert run_among(checks, names=[first]) == [first]
    assert run_among(checks, names=[second]) == [second]


@row("kd.theory_table.Check", "section", 1, 9, "rows come in the order of sections, under their titles")
def _(first, second):
    for section, order in ((first, ["moved", "other"]), (second, ["other", "moved"])):
        moved = made_check(name="moved", section=section)
        assert run_among([made_check(name="other", section=5), moved]) == order
        text = theory_table.report.markdown([moved.run()])
        assert f"## {section}. {theory_table.report.SECTIONS[section]}\n" in text


def cell_of(name, place):
    def check(first, second):
        for words in (first, second):
            assert report_of(made_check(**{name: words}).run())[1][place] == words

    return check


for place, name in enumerate(("result", "source", "setting")):
    row("kd.theory_table.Check", name, f"one {name}", f"other {name}", f"stands in column {place} of the report")(
        cell_of(name, place)
    )


@row("kd.theory_table.Check", "tolerance", 0.5, 0.49, "a deviation of the tolerance itself passes, more does not")
def _(first, second):
    for tolerance, verdict in ((first, "agrees"), (second, "DIFFERS")):
        line = made_check(tolerance=tolerance).run()
        assert line.error == 0.5
        assert line.passed == (verdict == "agrees")
        assert report_of(line)[1][-2:] == [f"{tolerance:g}", verdict]


@row(
    "kd.theory_table.Check",
    "kind",
    "absolute",
    "relative",
    "0.5 off 2 is 0.5, a quarter of the prediction, or no excess",
)
def _(first, second):
    below = made_check(function=lambda: numbers(measured=(0.5, 2.0)), kind="at most").run()
    errors = [made_check(kind=kind).run().error for kind in (first, second, "at most")]
    assert [*errors, below.error] == [0.5, 0.25, 0.5, 0.0]


@row("kd.theory_table.Check", "slow", False, True, "slow checks are left out where only fast ones are asked for")
def _(first, second):
    checks = [made_check(name="one", slow=first), made_check(name="two", slow=second)]
    assert run_among(checks, slow=False) == ["one"]
    assert run_among(checks) == ["one", "two"]


@row(
    "kd.theory_table.Check", "disputed", "", "the paper has a slip", "the reason stands in the verdict of what differs"
)
def _(first, second):
    verdicts = [report_of(made_check(disputed=words, tolerance=0.1).run())[1][-1] for words in (first, second)]
    assert verdicts == ["DIFFERS", f"DIFFERS: {second}"]
    assert report_of(made_check(disputed=second).run())[1][-1] == "agrees"


@row(
    "kd.theory_table.Check", "function", lambda: numbers(), lambda: 1 / 0, "its numbers are the row's, or its error is"
)
def _(first, second):
    good, bad = made_check(function=first).run(), made_check(function=second).run()
    assert good.comparison.measured.tolist() == [1.0, 2.5]
    assert good.passed
    assert bad.comparison is None
    assert not bad.passed
    assert bad.error == np.inf
    assert report_of(bad)[1][-1] == "FAILED: ZeroDivisionError: division by zero"


@row(
    "kd.theory_table.Comparison",
    "predicted",
    (1.0, 2.0),
    (2.0, 4.0),
    "deviations are relative to it, excess is over it",
)
def _(first, second):
    near, far = numbers(predicted=first), numbers(predicted=second)
    assert [near.error(kind) for kind in ("absolute", "relative", "at most")] == [0.5, 0.25, 0.5]
    assert [far.error(kind) for kind in ("absolute", "relative", "at most")] == [1.5, 0.5, 0.0]
    assert report_of(made_check(function=lambda: far).run())[1][3] == "2, 4"


@row("kd.theory_table.Comparison", "measured", (1.0, 2.5), (1.0,), "one number off counts; another shape never agrees")
def _(first, second):
    assert numbers(measured=first).error("relative") == 0.25
    assert numbers(measured=second).error("relative") == np.inf
    assert report_of(made_check(function=lambda: numbers(measured=first)).run())[1][4] == "1, 2.5"


@row("kd.theory_table.Comparison", "note", "", "a remark", "stands behind the result in the report")
def _(first, second):
    results = [report_of(made_check(function=lambda n=note: numbers(note=n)).run())[1][0] for note in (first, second)]
    assert results == ["made up", "made up (a remark)"]


@row(
    "kd.theory_table.Row", "check", made_check(), made_check(source="a book", tolerance=3.0), "its words are the line's"
)
def _(first, second):
    for check in (first, second):
        cells = report_of(made_row(check=check))[1]
        assert (cells[1], cells[6]) == (check.source, f"{check.tolerance:g}")


@row("kd.theory_table.Row", "comparison", numbers(), None, "its numbers are the line's; without any the check failed")
def _(first, second):
    assert report_of(made_row(comparison=first))[1][3:5] == ["1, 2", "1, 2.5"]
    failed = report_of(made_row(comparison=second, note="no solver", passed=False))[1]
    assert failed[3:5] == ["-", "-"]
    assert failed[-1] == "FAILED: no solver"


@row("kd.theory_table.Row", "error", 0.5, 2e-7, "stands in the column of deviations")
def _(first, second):
    assert [float(report_of(made_row(error=error))[1][5]) for error in (first, second)] == [first, second]


@row("kd.theory_table.Row", "passed", True, False, "is the verdict, and counts in the summary")
def _(first, second):
    for passed, verdict, count in ((first, "agrees", 1), (second, "DIFFERS", 0)):
        head, cells = report_of(made_row(passed=passed))
        assert cells[-1] == verdict
        assert f"{count} of 1 results agree" in head


@row("kd.theory_table.Row", "seconds", 2.0, 40.0, "adds up in the summary")
def _(first, second):
    rows = [made_row(seconds=first), made_row(seconds=second)]
    assert f"; {first + second:.0f} s of processor time in all" in theory_table.report.markdown(rows)
    assert f"; {first:.0f} s of processor time in all" in theory_table.report.markdown(rows[:1])


@row("kd.theory_table.Row", "note", "", "a remark", "stands behind the result")
def _(first, second):
    assert [report_of(made_row(note=n))[1][0] for n in (first, second)] == ["made up", "made up (a remark)"]


@row("kd.theory_table.run", "names", None, ["slow", "late"], "all, or these whether slow or not, by section")
def _(first, second):
    checks = [made_check(name=n, section=s, slow=n == "slow") for n, s in (("late", 9), ("fast", 5), ("slow", 1))]
    assert run_among(checks, names=first) == ["slow", "fast", "late"]
    assert run_among(checks, names=second, slow=False) == ["slow", "late"]
    with pytest.raises(ValueError, match="nonsense"):
        theory_table.run(["nonsense"])


@row("kd.theory_table.run", "slow", True, False, "all checks, or those that are not slow")
def _(first, second):
    checks = [made_check(name="slow", slow=True), made_check(name="fast")]
    assert run_among(checks, slow=first) == ["slow", "fast"]
    assert run_among(checks, slow=second) == ["fast"]
