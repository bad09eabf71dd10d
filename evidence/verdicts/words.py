"""The page for a reader who does not know the paper."""

from __future__ import annotations

import textwrap
from math import isnan
from pathlib import Path

from evidence import logs
from evidence.experiments import PRIMARY
from evidence.verdicts import distance
from evidence.verdicts.claims import subject
from evidence.verdicts.found import Found, Judged, interval, shown
from evidence.verdicts.tables import wished

WIDTH = 118
ALONE = (["window"], ["window+top_k"])  # supports that see nothing but a window
HEAD = """# Does a bounded-confidence rule make a better Transformer?

A Transformer's token listens to all others, a little to most and much to a few. *Krause attention* (arXiv 2602.11534)
lets it listen only to tokens that are near (a **window** of neighbours), alike (a **Gaussian** of the distance
between what it asks and what the other offers, instead of a dot product), and among the **k** most alike of these.
The paper reports better pictures classified at less computation, and says that the rule as a whole does it. Here
every part is switched on and off by itself, with several random starts, on small sets and short schedules, so that a
difference can be laid at the door of one part. How all of it was fixed beforehand is in `PROTOCOL.md`; every number
with its interval in `krause_paper.md`; the logs in `logs/`. This page is regenerated from them by `make evidence`."""
HINTS = "Beside it, to be taken as hints (of twenty that hide nothing, one looks like something by chance)"
READ = (
    "How to read it: behind each difference stands a bracket in which the true one lies, 95 times of 100. *It helps* "
    "or *it costs*: the bracket leaves out 0. *No difference*: it lies within bounds that were set before (half a "
    "point, 0.005 bits a byte). *These runs cannot tell*: neither, which does not mean that there is nothing: more "
    "random starts would be needed. Results were looked at more than once while runs came in (`PROTOCOL.md`, section "
    "8); no run was added, left out or repeated for what was seen, and the brackets are those of a single look."
)
END = """## How to repeat it

    python -m evidence.run fashion pair cifar --workers 3 --data DATA --out OUT     one GPU; --limit-seconds, resumed
    python -m evidence.run fashion --only fashion-dot.full-0 fashion-gaussian.window+top_k-0 --data DATA --out OUT
    python -m evidence.vits OUT --data DATA                                         these two, looked at
    python -m evidence.run smollm2 --workers 4 --data DATA --out OUT                one GPU; adapters of SmolLM2-135M
    python -m evidence.long_range --preset small --out OUT                          a CPU, an hour
    python -m evidence.long_range --preset large --workers 6 --out OUT              a GPU; of a CPU's core 80 minutes
    python -m evidence.logs OUT                                                     joins what was found into the logs
    make evidence                                                                   pages and figure

DATA holds `fashion` (idx files), `mnist`, `cifar-10` (binary or Python batches), `novels` (train, valid and test
texts) and `evaluations` (LAMBADA and BLiMP as JSON lines). `--compile` halves the time of a step on a GPU."""


def page(found: dict[str, Found], folder: Path = logs.FOLDER) -> str:
    """The whole page."""
    parts = [HEAD, "## In short", short(found)]
    for one in found.values():
        if one.counts[0] and (one.experiment.primary or one.experiment.exploratory):
            parts += [f"## {one.experiment.title}", sentences(one)]
    parts += ["## Attention sinks", sinks(folder), "## Long range", long_range(folder)]
    parts += ["## What is not known", unknown(found), END]
    return "\n\n".join(map(wrapped, parts)) + "\n"


def short(found: dict[str, Found]) -> str:
    """Each question that was asked beforehand, over the sets on which it was asked."""
    lines = []
    for label in PRIMARY:
        said: dict[str, list[str]] = {}
        for one in found.values():
            for judged in one.contrasts("primary"):
                if judged.label == label and judged.found is not None:
                    said.setdefault(outcome(judged, one), []).append(one.experiment.title.split(",")[0])
        if said:
            places = "; ".join(f"{word} on {' and '.join(sets)}" for word, sets in said.items())
            lines.append(f"- {subject(label)}: {places}.")
    if not lines:
        return "Not run yet."
    return "\n".join([*lines, "", READ])


def outcome(judged: Judged, one: Found) -> str:
    """A verdict in a word or two."""
    assert judged.found is not None
    better = (judged.found.estimate > 0) == one.experiment.larger_is_better
    words = {"differs": "helps" if better else "costs", "no difference": "no difference", "undecided": "undecided"}
    return words.get(judged.verdict, f"{'helps' if better else 'costs'} a little")


def wrapped(part: str) -> str:
    """Long lines broken, but for what is set as it is."""
    lines = [
        line if line.startswith(("    ", "#")) or len(line) <= WIDTH
        else textwrap.fill(line, WIDTH, subsequent_indent="  " * line.startswith("- "), break_on_hyphens=False)
        for line in part.split("\n")
    ]  # fmt: skip
    return "\n".join(lines)


def sentences(one: Found) -> str:
    """What an experiment found, a sentence a contrast."""
    kept, planned = one.counts
    lines = [f"{kept} of {planned} planned runs are in the logs."]
    for kind in ("primary", "exploratory"):
        judged = [j for j in one.contrasts(kind) if j.found is not None]
        if judged:
            lines.append("\nAsked beforehand:\n" if kind == "primary" else f"\n{HINTS}:\n")
            lines += [f"- {sentence(j, one)}" for j in judged]
    rates = {row["learning_rate"] for rows in one.reported.values() for row in rows if "learning_rate" in row}
    others = {arm: rate for arm, rate in wished(one).items() if rate not in rates}
    if rates and others:
        shared = ", ".join(f"{rate:g}" for rate in sorted(rates))
        told = ", ".join(f"`{arm}` {rate:g}" for arm, rate in others.items())
        lines.append(
            f"\nAll arms share one learning rate, {shared}, the best on average when it was chosen. By themselves some "
            f"would have taken another: {told}. So they may be shown a little below what they can do."
        )
    return "\n".join(lines)


def sentence(judged: Judged, one: Found) -> str:
    """One contrast in words."""
    found, unit = judged.found, one.experiment.unit
    assert found is not None
    number = f"{shown(found.estimate, unit)} {unit} ({interval(found, unit)})"
    helps = (found.estimate > 0) == one.experiment.larger_is_better
    ends = {
        "differs": "it **helps**" if helps else "it **costs**",
        "differs, negligibly": f"it {'helps' if helps else 'costs'}, by less than counts ({one.experiment.bound:g})",
        "no difference": f"**no difference** that counts ({one.experiment.bound:g})",
        "undecided": "these runs cannot tell",
    }
    end = "one random start, no interval" if isnan(judged.p) else ends[judged.verdict]
    if judged.verdict == "undecided" and found.low * found.high > 0:  # Holm's correction alone
        end += f" (the bracket leaves out 0, but {len(PRIMARY)} questions were asked: corrected p {judged.p:.2g})"
    return f"{subject(judged.label)}: {number}; {end}."


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
        "with untrained and shuffled controls are in `krause_paper.md`."
    )


def unknown(found: dict[str, Found]) -> str:
    """What was planned and not run, and what cannot be."""
    counts = {name: one.counts for name, one in found.items()}
    left = [
        f"{name} ({planned - kept} of {planned} runs)" for name, (kept, planned) in counts.items() if kept < planned
    ]
    return (
        ("Planned and not run yet: " + ", ".join(left) + ". " if left else "")
        + "Long schedules (300 epochs), ImageNet, CIFAR-100 and language models of 7 billion weights are beyond "
        "what was at hand; nothing here speaks about them. Short schedules favour whatever learns fast: a window is a "
        "prior that pictures are local, and part of its gain may fade with longer training."
    )
