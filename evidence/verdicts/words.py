"""The page for a reader who does not know the paper."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from evidence import logs
from evidence.experiments import EXPERIMENTS
from evidence.statistics import ONE_SEED
from evidence.verdicts import plain
from evidence.verdicts.found import Found, Judged, interval, shown
from evidence.verdicts.subjects import subject
from evidence.verdicts.tables import wished

WIDTH = 118
WIDER = 0.02  # share of more weights that is told
HEAD = """# Does a bounded-confidence rule make a better Transformer?

A Transformer's token listens to all others, a little to most and much to a few. *Krause attention* (arXiv 2602.11534)
lets it listen only to tokens that are near (a **window** of neighbours), alike (a **Gaussian** of the distance
between what it asks and what the other offers, instead of a dot product), and among the **k** most alike of these.
The paper reports better pictures classified at less computation, and says that the rule as a whole does it. Here
every part is switched on and off by itself, with several random starts, on small sets and short schedules, so that a
difference can be laid at the door of one part. How all of it was fixed beforehand is in `PROTOCOL.md`; every number
with its interval in `krause_paper.md`; the logs in `logs/`. This page is regenerated from them by `make evidence`."""
HINTS = "To be taken as hints (of twenty that hide nothing, one looks like something by chance)"
READ = (
    "How to read it: behind each difference stands a bracket in which the true one lies, 95 times of 100. *It helps* "
    "or *it costs*: the bracket leaves out 0. *No difference*: it lies within bounds that were set before (half a "
    "point, 0.005 bits a byte, 0.01 bits a dimension). *These runs cannot tell*: neither, which does not mean that "
    "there is nothing: more random starts would be needed. Results were looked at more than once while runs came in "
    "(`PROTOCOL.md`, section 8); no run of theirs was added, left out or repeated for what was seen, and the brackets "
    "are those of a single look. One experiment, `fashion-keys`, was added to test what the table of another had shown."
)
END = """## How to repeat it

    python -m evidence.run fashion pair cifar --workers 3 --data DATA --out OUT     one GPU; --limit-seconds, resumed
    python -m evidence.run fashion --only fashion-dot.full-0 fashion-gaussian.window+top_k-0 --data DATA --out OUT
    python -m evidence.vits OUT --data DATA                                         these two, looked at
    python -m evidence.run smollm2 --workers 4 --data DATA --out OUT                one GPU; adapters of SmolLM2-135M
    python -m evidence.long_range --preset small --out OUT                          a CPU, an hour
    python -m evidence.long_range --preset large --workers 6 --out OUT              a GPU; of a CPU's core 90 minutes
    python -m evidence.costs fashion cifar novels mnist --out OUT                   one GPU; a step of each arm, alone
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
    parts += ["## Attention sinks", plain.sinks(folder), "## Long range", plain.long_range(folder)]
    parts += ["## What is not known", unknown(found), END]
    return "\n\n".join(map(wrapped, parts)) + "\n"


def short(found: dict[str, Found]) -> str:
    """Each question that was asked beforehand, over the sets on which it was asked, then over variants of the model."""
    lines = []
    asked = dict.fromkeys(label for one in found.values() for label in one.experiment.primary)
    for label in asked:
        said = said_of(found, "primary", lambda one, judged, label=label: place(one) if judged.label == label else None)
        if said:
            lines.append(f"- {subject(label)}: {said}.")
    if not lines:
        return "Not run yet."
    others = {
        label: said_of(found, "exploratory", lambda one, judged, label=label: variant(judged.label, label))
        for label in asked
    }
    if any(others.values()):
        lines.append("\nThe same of two further models on Fashion-MNIST (hints, not corrected for their number):\n")
        lines += [f"- {subject(label)}: {said}." for label, said in others.items() if said]
    return "\n".join([*lines, "", READ])


def said_of(found: dict[str, Found], kind: str, place: Callable[[Found, Judged], str | None]) -> str:
    """Outcomes and the places that have them, in words; contrasts without a place are left out."""
    said: dict[str, list[str]] = {}
    for one in found.values():
        for judged in one.contrasts(kind):
            where = place(one, judged)
            if where is not None and judged.found is not None:
                said.setdefault(outcome(judged, one), []).append(where)
    return "; ".join(f"{word} {' and '.join(places)}" for word, places in said.items())


def place(one: Found) -> str:
    """On which set."""
    return f"on {one.experiment.title.split(',')[0]}"


def variant(label: str, plain_label: str) -> str | None:
    """``with post-norm`` of the contrast ``window - full, post-norm``; ``None`` of another one's."""
    rest = label.removeprefix(f"{plain_label}, ")
    return f"with {rest}" if rest != label else None


def outcome(judged: Judged, one: Found) -> str:
    """A verdict in a word or two."""
    assert judged.found is not None
    better = (judged.found.estimate > 0) == one.experiment.larger_is_better
    words = {
        "differs": "helps" if better else "costs",
        "differs, negligibly": f"{'helps' if better else 'costs'} a little",
    }
    return words.get(judged.verdict, judged.verdict)


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
            hints = HINTS if len(lines) == 1 else f"Beside it, {HINTS[0].lower()}{HINTS[1:]}"
            lines.append("\nAsked beforehand:\n" if kind == "primary" else f"\n{hints}:\n")
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
    tuned = EXPERIMENTS[one.experiment.beside or one.experiment.name].tuning_arms
    if rates and len(tuned) == 1:
        lines.append(
            f"\nThe learning rate, for all arms the same, is the best of `{tuned[0]}` alone: an advantage for that "
            "arm, if for any."
        )
    return "\n".join(lines)


def sentence(judged: Judged, one: Found) -> str:
    """One contrast in words."""
    found, unit = judged.found, one.experiment.unit
    assert found is not None
    bracket = "" if judged.verdict == ONE_SEED else f" ({interval(found, unit)})"
    number = f"{shown(found.estimate, unit)} {unit}{bracket}"
    helps = (found.estimate > 0) == one.experiment.larger_is_better
    ends = {
        "differs": "it **helps**" if helps else "it **costs**",
        "differs, negligibly": f"it {'helps' if helps else 'costs'}, by less than counts ({one.experiment.bound:g})",
        "no difference": f"**no difference** that counts ({one.experiment.bound:g})",
        "undecided": "these runs cannot tell",
        ONE_SEED: "an arm with one random start, so no bracket",
    }
    end = ends[judged.verdict]
    if judged.verdict == "undecided" and found.low * found.high > 0:  # Holm's correction alone
        asked = len(one.experiment.primary)
        end += f" (the bracket leaves out 0, but {asked} questions were asked: corrected p {judged.p:.2g})"
    more = one.more_weights({**one.experiment.primary, **one.experiment.exploratory}[judged.label])
    if abs(more) > WIDER:
        end += f" ({abs(more):.0%} {'more' if more > 0 else 'fewer'} weights learn, which may be a part of it)"
    return f"{subject(judged.label)}: {number}; {end}."


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
        "prior that pictures are local, and part of its gain may fade with longer training." + faded(found)
    )


def faded(found: dict[str, Found]) -> str:
    """Gains after five epochs beside the same after fifteen; nothing until both were run."""
    short, long = found["fashion-reach"], found["fashion-keys"]
    both = [
        (subject(label), short.of(label, weights).found, long.of(label, weights).found)
        for label, weights in long.experiment.primary.items()
    ]
    lines = [
        f" {about}: {shown(early.estimate, 'points')} points after five epochs, "
        f"{shown(late.estimate, 'points')} ({interval(late, 'points')}) after fifteen."
        for about, early, late in both
        if early is not None and late is not None
    ]
    return " So it went with top-k (`fashion-reach`, `fashion-keys`)." + "".join(lines) if lines else ""
