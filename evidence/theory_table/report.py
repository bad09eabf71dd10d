"""The table as Markdown: result, source, setting, predicted, measured, tolerance, verdict."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np

from evidence.theory_table._row import Row

SECTIONS = {
    1: "Discrete Hegselmann-Krause in one dimension",
    2: "Energies and invariants",
    3: "Softmax attention on the sphere",
    4: "Mean-field instability, mode selection, metastability",
    5: "Mean-field Hegselmann-Krause, noise, propagation of chaos",
    6: "Gaussian closures",
    7: "Long context, rank collapse, spectra",
    8: "Krause attention near consensus",
    9: "Causal attention and Renyi centres",
    10: "How far a stack of layers looks back",
    11: "Random value matrices",
    12: "Hard attention",
}

HEADER = "| result | source | setting | predicted | measured | deviation | tolerance | verdict |\n" + "| --- " * 8 + "|"


def verdict(row: Row) -> str:
    """agrees, DIFFERS (with the reason where there is one), or FAILED to run."""
    if row.comparison is None:
        return f"FAILED: {row.note}"
    if row.passed:
        return "agrees"
    return f"DIFFERS: {row.check.disputed}" if row.check.disputed else "DIFFERS"


def markdown(rows: Sequence[Row]) -> str:
    """The whole table with a summary and the versions it was made with."""
    import scipy

    from krause_dynamics._version import __version__

    agree = sum(row.passed for row in rows)
    lines = [
        "# Theory, reproduced",
        "",
        f"{agree} of {len(rows)} results agree within their tolerance. Predicted: closed forms and quadratures of "
        "`kd.theory`, or published values. Measured: simulation or solver. Regenerate with `make theory`.",
        "",
        f"krause_dynamics {__version__}, numpy {np.__version__}, scipy {scipy.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}; "
        f"{sum(row.seconds for row in rows):.0f} s of processor time in all.",
    ]
    for section, title in SECTIONS.items():
        chosen = [row for row in rows if row.check.section == section]
        if chosen:
            lines += ["", f"## {section}. {title}", "", HEADER, *(_line(row) for row in chosen)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    comparison, check = row.comparison, row.check
    numbers = ("-", "-") if comparison is None else (_numbers(comparison.predicted), _numbers(comparison.measured))
    kind = {"absolute": "", "relative": " (relative)", "at most": " (excess)"}[check.kind]
    result = check.result + (f" ({row.note})" if row.note and comparison is not None else "")
    cells = [
        result,
        check.source,
        check.setting,
        *numbers,
        f"{row.error:.1e}",
        f"{check.tolerance:g}{kind}",
        verdict(row),
    ]
    # A bar inside a cell would start a new one.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _numbers(values: np.ndarray) -> str:
    flat = np.ravel(values)
    shown = [f"{value:.6g}" for value in (flat if flat.size <= 4 else flat[:2])]
    return ", ".join(shown) + ("" if flat.size <= 4 else f", ... ({flat.size} numbers)")
