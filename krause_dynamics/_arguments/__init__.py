"""What each argument may be, written once beside its function or class; every error says name, domain and value.

    @reads(radius=POSITIVE, count=Whole(2))
    def settle(density, radius, *, count=101): ...

Functions read their arguments by `reads`, formulas by ``theory._formula.formula``, values their fields by the same
domains in ``__post_init__``: ``POSITIVE_PARAMETER.read("sigma", self.sigma)``.
"""

from typing import TYPE_CHECKING, Any

from krause_dynamics._arguments.numbers import (
    COUNT,
    COUNT_OR_ZERO,
    LARGEST,
    PARAMETER,
    POSITIVE,
    POSITIVE_PARAMETER,
    Complexes,
    Parameter,
    Real,
    Reals,
    Sizes,
    Whole,
    affordable,
    within,
)
from krause_dynamics._arguments.reading import reads
from krause_dynamics._arguments.things import (
    FILE,
    FLAG,
    FOLDER,
    Called,
    Domain,
    Entries,
    Flag,
    Holds,
    Is,
    Maybe,
    Points,
    Word,
)

if TYPE_CHECKING:
    ArrayLike = Any  # inside a formula it has been read: a float64 array
else:
    from numpy.typing import ArrayLike as ArrayLike

__all__ = [
    "COUNT", "COUNT_OR_ZERO", "FILE", "FLAG", "FOLDER", "LARGEST", "PARAMETER", "POSITIVE", "POSITIVE_PARAMETER",
    "ArrayLike", "Called", "Complexes", "Domain", "Entries", "Flag", "Holds", "Is", "Maybe", "Parameter", "Points",
    "Real", "Reals", "Sizes", "Whole", "Word", "affordable", "reads", "within",
]  # fmt: skip
