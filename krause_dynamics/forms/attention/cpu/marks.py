"""Marks by which equal vectors are found."""

from __future__ import annotations

from krause_dynamics.forms.attention.cpu.compiled import entry

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@entry
def mark(bits, odd, marks):
    """Sums of the bits of vectors times odd numbers, modulo 2^64: equal vectors have equal ones, others rarely do.

    Args:
        bits: (vectors, d) unsigned integers.
        odd: (d,) of 64 bits.
        marks: Result (vectors,) of 64 bits.
    """
    for i in range(bits.shape[0]):
        vector, total = bits[i], marks.dtype.type(0)
        for c in range(vector.shape[0]):
            total += vector[c] * odd[c]
        marks[i] = total
