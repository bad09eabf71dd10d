"""The table of theory: its fast rows agree, its slow rows too (marked slow), and a failing row is shown as such."""

from fractions import Fraction

import numpy as np
import pytest

from evidence.theory_table import CHECKS, Check, Comparison, _row, errata, report
from krause_dynamics import theory_table

FAST = [name for name, check in CHECKS.items() if not check.slow and not check.disputed]
SLOW = [name for name, check in CHECKS.items() if check.slow and not check.disputed]
DISPUTED = [
    pytest.param(name, marks=[pytest.mark.slow] if check.slow else [])
    for name, check in CHECKS.items()
    if check.disputed
]


def assert_agrees(name):
    (row,) = theory_table.run([name])
    assert row.passed, f"{report.verdict(row)}: deviation {row.error:.3g}, tolerance {row.check.tolerance:g} {row.note}"


@pytest.mark.parametrize("name", FAST)
def test_fast_result_agrees(name):
    assert_agrees(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow_result_agrees(name):
    assert_agrees(name)


@pytest.mark.parametrize("name", DISPUTED)
def test_disputed_result_still_differs(name):
    if name == "participation_of_a_trained_decoder":
        pytest.importorskip("gguf")  # which comes with the weights
    (row,) = theory_table.run([name])
    assert not row.passed
    assert row.check.disputed in report.verdict(row)


@pytest.mark.parametrize("entry", errata.ERRATA, ids=lambda entry: entry.title)
def test_exact_numbers_contradict_the_statement(entry):
    assert entry.find().confirmed


def test_page_of_errata_names_every_counterexample_and_every_disputed_row():
    page = errata.markdown()
    assert "HOLDS" not in page
    assert all(f"## {entry.title}" in page for entry in errata.ERRATA)
    assert all(check.disputed in page for check in CHECKS.values() if check.disputed)


def test_minimising_tokens_stop_short():
    """The closed form of the counterexample, step by step."""
    for t, (first, second) in enumerate(errata.minimising_steps(60)):
        if t >= 2:
            assert (first, second) == (Fraction(1, 3) + Fraction(8, t * (t + 1)), Fraction(1, 3))


def row_of(function, tolerance=0.1, kind="absolute", disputed=""):
    return Check("name", 1, "a | b", "source", "setting", tolerance, kind, False, disputed, function).run()


def test_kinds_of_deviation():
    two = Comparison(np.array([1.0, 2.0]), np.array([1.1, 1.0]))
    assert two.error("absolute") == pytest.approx(1.0)
    assert two.error("relative") == pytest.approx(0.5)
    assert two.error("at most") == pytest.approx(0.1)


def test_lists_of_unequal_length_fail():
    assert not row_of(lambda: _row.compare([1.0, 2.0], [1.0])).passed


def test_nothing_measured_fails():
    assert not row_of(lambda: _row.compare(1.0, np.nan)).passed


def test_failures_are_shown():
    def broken():
        raise RuntimeError("no such solver")

    text = report.markdown(
        [row_of(broken), row_of(lambda: _row.compare(1.0, 2.0, "why")), row_of(lambda: _row.compare(1, 1))]
    )
    assert "1 of 3 results agree" in text
    assert "FAILED: RuntimeError: no such solver" in text
    assert "DIFFERS" in text
    assert "a \\| b (why)" in text


def test_unknown_checks_are_named():
    with pytest.raises(ValueError, match="nonsense"):
        theory_table.run(["nonsense"])


def test_names_are_unique():
    with pytest.raises(ValueError, match="different names"):
        _row.check(1, source="", setting="", tolerance=0.0)(CHECKS[FAST[0]].function)


def test_command_writes_table_and_figure(tmp_path):
    from evidence.theory_table.__main__ import main

    assert main(["--folder", str(tmp_path), "key_bias", "self_weight"]) == 0
    assert "2 of 2 results agree" in (tmp_path / "theory.md").read_text()
    assert (tmp_path / "theory.png").stat().st_size > 1000
    assert (tmp_path / "theory.json").exists()
    assert (tmp_path / "errata.md").read_text() == errata.markdown()


def test_figure_marks_failures():
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from krause_dynamics import plots

    ax = plots.verdicts(["exact", "within", "beyond", "failed"], [0.0, 0.5, 3.0, np.inf], ["a", "b", "b", "b"])
    offsets = ax.collections[0].get_offsets()
    np.testing.assert_allclose(offsets[:, 0], [1e-9, 0.5, 3.0, 1e3])
    np.testing.assert_allclose(offsets[:, 1], [0.0, 0.7, 1.0, 1.3])
    assert [text.get_text() for text in ax.texts] == ["1 exact", "1 beyond", "exact", "beyond", "failed"]
    assert len({tuple(c) for c in ax.collections[0].get_facecolors()}) == 2
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="one entry per result"):
        plots.verdicts(["a"], [], ["b"])
