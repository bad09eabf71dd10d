"""Run the checks and write the table: ``python -m krause_dynamics.theory_table [--fast] [--folder F] [check ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evidence.theory_table import CHECKS, errata, report, run


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, write ``theory.md``, ``theory.png``, ``errata.md``; returns 1 when an undisputed check fails."""
    parser = argparse.ArgumentParser(prog="python -m krause_dynamics.theory_table", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="check", help="names of checks; all when none is given")
    parser.add_argument("--fast", action="store_true", help="leave out the slow checks")
    parser.add_argument("--folder", default="figures", type=Path, help="where the table and the figure go")
    options = parser.parse_args(arguments)
    names = options.checks or [c.name for c in CHECKS.values() if not (options.fast and c.slow)]
    rows = []
    for name in sorted(names, key=lambda n: CHECKS[n].section if n in CHECKS else 0):
        rows += run([name])
        sys.stderr.write(f"{report.verdict(rows[-1]):10.10} {rows[-1].seconds:7.2f} s  {name}\n")
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "theory.md").write_text(report.markdown(rows), encoding="utf-8")
    (options.folder / "errata.md").write_text(errata.markdown(), encoding="utf-8")
    _figure(rows, options.folder / "theory.png")
    return int(any(not row.passed and not row.check.disputed for row in rows))


def _figure(rows: list, path: Path) -> None:
    from krause_dynamics import plots

    shares = [row.error / (row.check.tolerance or 1e-16) for row in rows]
    sections = [report.SECTIONS[row.check.section] for row in rows]
    with plots.style():
        ax = plots.verdicts([row.check.result for row in rows], shares, sections)
        ax.set_title(f"{sum(row.passed for row in rows)} of {len(rows)} results within their tolerance", loc="left")
        ax.set_xlabel("deviation / tolerance (rounding, step or sampling, as each row of the table says)")
        figure = ax.get_figure(root=True)
        assert figure is not None  # the Axes were made above
        figure.set_size_inches(11.0, 1.4 + 0.5 * len(set(sections)))
        plots.save_figure(figure, path, {"command": "make theory", "checks": len(rows)})


if __name__ == "__main__":
    raise SystemExit(main())
