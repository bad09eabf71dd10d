"""What an erratum is: a printed statement, and a case in exact numbers that contradicts what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fails", "needs its hypothesis", "is void"]


@dataclass(frozen=True)
class Finding:
    """What a case gives.

    Attributes:
        said: What the statement says of it.
        found: What it is, exactly.
        confirmed: Whether the exact numbers contradict what is said.
        evidence: The steps, a line each.
    """

    said: str
    found: str
    confirmed: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Erratum:
    """A statement and a case against it.

    Attributes:
        title: What is wrong, in a few words.
        source: Where the statement stands, or who says it.
        statement: What is said.
        verdict: That it fails, needs a hypothesis, or says nothing.
        right: What holds instead.
        find: The case, worked out in exact numbers.
    """

    title: str
    source: str
    statement: str
    verdict: Verdict
    right: str
    find: Callable[[], Finding]


ERRATA: list[Erratum] = []


def erratum(*, source: str, statement: str, verdict: Verdict, right: str) -> Callable[[Callable[[], Finding]], None]:
    """Register a case; the docstring of the function is the title. See `Erratum` for the arguments."""

    def register(find: Callable[[], Finding]) -> None:
        title = (find.__doc__ or find.__name__).strip().rstrip(".")
        ERRATA.append(Erratum(title, source, statement, verdict, right, find))

    return register
