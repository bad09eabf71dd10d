"""What a reader of the tables has to know of the runs: what they can tell, how they ran, what is no cost."""

from __future__ import annotations

from collections import Counter

from scipy import stats

from evidence.verdicts.found import Found, shown


def of_contrasts(one: Found) -> str:
    """What the columns mean and how small a difference these runs can tell."""
    parts = []
    if one.experiment.primary:
        parts.append("*p* of primary rows is corrected for their number (Holm), that of exploratory rows is not.")
    else:
        parts.append("*p* is not corrected for the number of rows.")
    if one.answers:
        parts.append("*Test set*: standard error by the choice of the test pictures.")
    parts.append(
        "*Seeds*: the fewest of the arms. *Seed as a block*: the interval when what runs of one seed share (order, "
        "augmentation) is taken out; a check that was not planned and decides no verdict."
    )
    several = [count for count in one.pooled.counts.values() if count > 1]
    if several:
        unit, bound = one.experiment.unit, one.experiment.bound
        seeds = Counter(several).most_common(1)[0][0]
        half = stats.t.ppf(0.975, one.pooled.degrees) * one.pooled.error * (2 / seeds) ** 0.5
        end = f", wider than +-{bound:g}: *no difference* cannot come out of it" if half > bound else ""
        parts.append(f"Two arms of {seeds} seeds have an interval of +-{shown(half, unit, signed=False)}{end}.")
    if len(several) < len(one.pooled.counts):
        parts.append("An arm of one seed has no interval, and its contrasts no verdict.")
    return " ".join(parts)


def of_arms(one: Found) -> str:
    """How the runs were made, and what their columns do not say."""
    arms = [arm.name for arm in one.experiment.arms if arm.name in one.reported]
    timed, shared = ([arm for arm in arms if (arm in one.alone) == alone] for alone in (True, False))
    parts = []
    if timed:
        way = "captured, not compiled" if all(one.alone[arm]["captured"] for arm in timed) else "eager"
        parts.append(
            f"*Ms a step* and *MiB*: of the arm's step ({way}) with nothing beside it, one arm after the other on one "
            "device (`python -m evidence.costs`)" + (", where that was measured." if shared else ".")
        )
    if shared:
        parts.append(
            "MiB: what the process had reserved, evaluation included; with torch.compile it is another number. Only "
            "rows of the same way compare."
        )
    if any(row.get("workers") != 1 for arm in shared for row in one.reported[arm]):
        parts.append("*Shared*: steps were timed while several runs shared the machine, which is no cost.")
    rows = [row for arm in arms for row in one.reported[arm]]
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
