"""What a reader of the tables has to know of the runs: what they can tell, how they ran, what is no cost."""

from __future__ import annotations

from collections import Counter

from scipy import stats

from evidence.verdicts.found import Found, shown


def of_contrasts(one: Found) -> str:
    """What the columns mean and how small a difference these runs can tell."""
    parts = [
        "*p* of primary rows is corrected for their number (Holm), that of exploratory rows is not. *Test set*: "
        "standard error by the choice of the test pictures. *Seeds*: the fewest of the arms. *Seed as a block*: the "
        "interval when what runs of one seed share (order, augmentation) is taken out; a check that was not planned "
        "and decides no verdict."
    ]
    if one.pooled.degrees:
        unit, bound = one.experiment.unit, one.experiment.bound
        seeds = Counter(one.pooled.counts.values()).most_common(1)[0][0]
        half = stats.t.ppf(0.975, one.pooled.degrees) * one.pooled.error * (2 / seeds) ** 0.5
        end = f", wider than +-{bound:g}: *no difference* cannot come out of it" if half > bound else ""
        parts.append(f"Two arms of {seeds} seeds have an interval of +-{shown(half, unit, signed=False)}{end}.")
    return " ".join(parts)


def of_arms(one: Found) -> str:
    """How the runs were made, and what their columns do not say."""
    rows = [row for arm in one.experiment.arms for row in one.reported.get(arm.name, ())]
    parts = [
        "MiB: what the process had reserved, evaluation included; with torch.compile it is another number. Only rows "
        "of the same way compare."
    ]
    if any(row.get("workers") != 1 for row in rows):
        parts.append("*Shared*: steps were timed while several runs shared the machine, which is no cost.")
    if any(row.get("multiply_adds_executed", 0) < row.get("multiply_adds_useful", 0) for row in rows):
        parts.append(
            "*Executed* was counted when the row of CLS, which hears all, was taken for one like the others: up to "
            "0.4 % too few, so that *useful* may stand above it."
        )
    return " ".join([*parts, compiled(one)]).strip()


def compiled(one: Found) -> str:
    """Which runs torch.compile fused; nothing where none was."""
    fused: dict[str, list[int]] = {}
    number = total = 0
    for arm in one.experiment.arms:
        rows = one.reported.get(arm.name, ())
        seeds = sorted(row["seed"] for row in rows if row.get("compiled") in (True, "True"))
        number, total = number + len(seeds), total + len(rows)
        if seeds:
            fused.setdefault(", ".join(map(str, seeds)), []).append(f"`{arm.name}`")
    if number in (0, total):
        return "torch.compile fused all of these runs." if number else ""
    told = "; ".join(f"seeds {seeds} of {', '.join(arms)}" for seeds, arms in fused.items())
    return (
        f"torch.compile fused {number} of these {total} runs: {told}. Losses with and without it agree up to rounding, "
        "which is one more source of a run's error."
    )
