"""The tasks over a distance: accuracy within and beyond the horizon of a stack of windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from evidence import logs
from krause_dynamics import theory

LEVEL = 0.01  # of the exact binomial test of chance


def rows(folder: Path) -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
    """By preset, task and arm: counts of right and of all answers by lag, summed over seeds, and facts of the runs."""
    runs = {row["run"]: row for row in logs.read(folder, "long_range", "results")}
    found: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for row in logs.read(folder, "long_range", "answers"):
        run = runs[row["run"]]
        key = run["preset"], run["task"], run["arm"]
        counts = found.setdefault(key, defaultdict(lambda n=run["length"]: np.zeros(n, int)))  # type: ignore[misc]
        counts["right"][row["lag"]] += row["right"]
        counts["asked"][row["lag"]] += row["asked"]
    for run in runs.values():
        counts = found[run["preset"], run["task"], run["arm"]]
        counts["horizon"], counts["chance"] = np.array(run["horizon"]), np.array(run["chance"])
        counts["shape"] = np.array([run["layers"], run["window"]])
        counts["seeds"] = np.array(counts.get("seeds", 0)) + 1
        counts["gradient"] = np.maximum(counts.get("gradient", 0.0), run["gradient_beyond"])
    return found


def section(folder: Path) -> Iterator[str]:
    """Heading, words and table; nothing without logs."""
    found = rows(folder)
    if not found:
        return
    yield "## Long range"
    reaches = sorted({(*counts["shape"].tolist(), int(counts["horizon"])) for counts in found.values()})
    words = []
    for layers, window, horizon in reaches:
        soft = theory.stack_reach(layers=layers, window=window, residual=0.5)
        words.append(
            f"{layers} layers, W {window}: horizon {horizon}; at initialisation (residual weight 0.5) the lag is "
            f"{soft.mean:.1f} +- {2 * soft.deviation:.1f} (two deviations)"
        )
    yield (
        f"Tasks whose answer lies D tokens back. {'; '.join(words)}. Beyond the horizon the gradient of the answer is "
        "exactly 0 (largest found below), and accuracy is chance unless an exact binomial test rejects it at "
        f"{LEVEL:.0%}."
    )
    lines = [
        "| task | arm | seeds | within the horizon | beyond | chance | largest gradient beyond | beyond is |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (preset, task, arm), counts in found.items():
        lines.append(f"| {task} ({preset}) | `{arm}` | {int(counts['seeds'])} | " + " | ".join(cells(counts)) + " |")
    yield "\n".join(lines)


def cells(counts: dict[str, np.ndarray]) -> list[str]:
    """Accuracy on either side of the horizon, chance, the largest gradient, the verdict."""
    last, chance = int(counts["horizon"]) + 1, float(counts["chance"])
    shares = []
    for side in (slice(None, last), slice(last, None)):
        right, asked = int(counts["right"][side].sum()), int(counts["asked"][side].sum())
        shares.append(f"{right / asked:.3f} ({asked})" if asked else "-")
    right, asked = int(counts["right"][last:].sum()), int(counts["asked"][last:].sum())
    word = "-"
    if asked:
        p = float(stats.binomtest(right, asked, chance).pvalue)
        word = f"chance (p {p:.2g})" if p >= LEVEL else f"{'above' if right > chance * asked else 'below'} chance"
    return [*shares, f"{chance:.3f}", f"{float(counts['gradient']):.2g}", word]
