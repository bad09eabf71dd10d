"""The tables of claims and of what critics asked for: each row with what was found and a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

from evidence.statistics import ONE_SEED
from evidence.verdicts.asked import ASKED
from evidence.verdicts.claims import CLAIMS, Claim
from evidence.verdicts.found import Found, Judged, interval, shown
from evidence.verdicts.further import table
from evidence.verdicts.sampling import sampled

COMMAND = "python -m evidence.run {} --data DATA --out OUT"
LEGEND = (
    "*Reproduced* (*holds here* where the paper shows no number): the interval lies on the claimed side of 0; "
    "*negligibly*: and within the bounds of no difference. *Differs*: it lies on the other side, or within those "
    "bounds where the paper's difference does not; where the paper's does too, *no difference, nor is the paper's*. "
    "*Undecided*: none of these, which is no sign that nothing is there. *One seed*: an arm ran once, so that there "
    "is no interval. These verdicts are not corrected for the number of rows."
)


def claims(found: dict[str, Found]) -> Iterator[str]:
    """What the paper says."""
    yield table(
        ["claim", "paper", "ours", "verdict", "command"],
        [[claim.words, claim.paper, *judged_of(claim, found)] for claim in CLAIMS],
    )
    yield LEGEND


def asked(found: dict[str, Found]) -> Iterator[str]:
    """What its critics want to know."""
    yield table(["asked", "ours", "verdict", "command"], [[claim.words, *judged_of(claim, found)] for claim in ASKED])
    yield "Verdicts of rows with an interval are those of the tables of contrasts below, without correction."


def judged_of(claim: Claim, found: dict[str, Found]) -> tuple[str, str, str]:
    """Ours, verdict, command."""
    command = claim.command or (COMMAND.format(claim.experiment) if claim.experiment else "")
    code = f"`{command}`" if command else "-"
    if claim.sampled:
        speed = sampled(claim.sampled)
        return ("not measured yet", "not run", code) if speed is None else (speed.words, speed.verdict, code)
    if not claim.experiment:
        return claim.reason, claim.verdict, code
    one = replace(found[claim.experiment], measure=claim.measure)
    if claim.measure != "test":  # shares, in points
        one = replace(one, experiment=replace(one.experiment, scale=100.0, unit="points", bound=0.5))
    judged = one.of(claim.words, claim.weights)
    if judged.found is None:
        return "not run yet", "not run", code
    unit, seeds = one.experiment.unit, judged.seeds
    ours = f"{shown(judged.found.estimate, unit)} ({interval(judged.found, unit)})"
    ours = f"{ours}, {seeds} seed{'s' * (seeds > 1)}" + (f"; {claim.reason}" if claim.reason else "")
    return ours, word(claim, judged, one.experiment.bound), code


def word(claim: Claim, judged: Judged, bound: float) -> str:
    """Verdict of a claim, or of a question where nothing is claimed."""
    found = judged.found
    assert found is not None
    if not claim.sign:
        return judged.verdict
    if not isfinite(found.low):
        return ONE_SEED
    inside = -bound < found.low and found.high < bound
    if min(claim.sign * found.low, claim.sign * found.high) > 0:
        right = "holds here" if claim.difference is None else "reproduced"
        return right + (", negligibly" if inside else "")
    if max(claim.sign * found.low, claim.sign * found.high) < 0:
        return "differs"
    if not inside:
        return "undecided"
    small = claim.difference is not None and abs(claim.difference) < bound
    return "no difference, nor is the paper's" if small else "differs"
