"""In plain words: sinks of trained models, and how far a stack of windows sees."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from evidence import logs
from evidence.verdicts import distance

ALONE = (["window"], ["window+top_k"])  # supports that see nothing but a window
ADAPTERS = {
    "base": "before it learned",
    "lora": "with adapters (LoRA)",
    "krause+lora": "with these beside a Krause branch",
}


def long_range(folder: Path) -> str:
    """Where the rule fails: beyond its horizon."""
    alone = [c for (_, _, arm), c in distance.rows(folder).items() if arm.split(".")[1:] in ALONE]
    asked, right = (sum(int(c[name][int(c["horizon"]) + 1 :].sum()) for c in alone) for name in ("asked", "right"))
    if not asked:
        return "Not run yet."
    chance = max(float(c["chance"]) for c in alone)
    return (
        "A stack of L windows of W tokens can carry news L (W - 1) tokens far, whatever it has learned: the derivative "
        "of its answer by anything further back is exactly zero. Models with a window alone were asked for what lay "
        f"beyond (the same questions to each): of {asked} answers {right / asked:.3f} were right; of guesses "
        f"{chance:.3f} are. A few first tokens that stay visible, or a softmax branch beside the window, are the ways "
        "out; the table in `krause_paper.md` shows how far each goes."
    )


def sinks(folder: Path) -> str:
    """What the first token gets in the trained twins; nothing without their logs."""
    parts = []
    for log, name in (("twins", "the pair that draws digits"), ("vits", "the vision transformers (CLS)")):
        rows = {row["model"]: row for row in logs.read(folder, log, "results") if row["control"] == "trained"}
        if rows:
            cells = [f"{rows[m]['sink_rate']:.1f} % of heads under {m}" for m in ("softmax", "krause")]
            parts.append(f"{name}: {' and '.join(cells)}")
    if not parts:
        return "Not looked at yet."
    return (
        "The paper shows fewer attention sinks, without scores. A sink here is a head in which the first token gets "
        f"over 0.3 of the weight of the queries that can hear it. Of {'; of '.join(parts)}. A row of k keys cannot "
        "give each of them little, so whoever is chosen often is a sink by that measure: a property of top-k. Tables "
        "with untrained and shuffled controls are in `krause_paper.md`." + branches(folder)
    )


def branches(folder: Path) -> str:
    """Sinks of a pretrained model and of what learned beside it, mean over seeds; nothing without their logs."""
    rows = [row for row in logs.read(folder, "smollm2", "results") if "sink_rate_softmax" in row]
    cells = []
    for arm, words in ADAPTERS.items():
        own = [row for row in rows if row["arm"] == arm]
        if own:
            cells.append(f"{100.0 * mean(row['sink_rate_softmax'] for row in own):.1f} % of heads {words}")
        of_branch = [row["sink_rate_krause"] for row in own if "sink_rate_krause" in row]
        if of_branch:
            cells[-1] += f" ({100.0 * mean(of_branch):.1f} % of that branch's own)"
    return f" Of SmolLM2-135M's softmax attention: {', '.join(cells)}." if cells else ""
