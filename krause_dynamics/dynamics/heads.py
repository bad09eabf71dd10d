"""Query, key and value matrices of one or several heads, at work on positions."""

from __future__ import annotations

from typing import Any, NamedTuple

from krause_dynamics._array import Array, like


class Heads(NamedTuple):
    """The three matrices: ``None`` (identity), (d', d), ([*batch,] heads, d', d), or a function of time, each."""

    query: Any
    key: Any
    value: Any

    @classmethod
    def of(cls, query: Any, key: Any, value: Any, x: Array) -> Heads | None:
        """Constant matrices with the library, dtype and device of ``x``; ``None`` where all are the identity."""
        if query is None and key is None and value is None:
            return None
        return cls(*(m if m is None or callable(m) else like(m, x) for m in (query, key, value)))

    def at(self, t: float, y: Array, d: int | None = None) -> tuple[Array, Array, Array]:
        """Queries, keys and values of positions: (..., n, d), or all (..., heads, n, d) where some matrix has heads.

        Args:
            t: Time.
            y: What is read of the positions, (..., n, d_read).
            d: Coordinates of a value, where more or fewer numbers are read of a position than it has.
        """
        matrices = [m(t) if callable(m) else m for m in self]
        heads = any(getattr(m, "ndim", 0) >= 3 for m in matrices)
        query, key = (_apply(m, y, heads) for m in matrices[:2])
        return query, key, _square(matrices[2], y, heads, d)

    def values(self, t: float, y: Array) -> Array:
        """Values of further sources."""
        return _square(self.value(t) if callable(self.value) else self.value, y, heads=False)


def _square(matrix: Any, y: Array, heads: bool, d: int | None = None) -> Array:
    """Values, of which a drift is made: one row of V for each coordinate, or a single one would move them all alike."""
    values = _apply(matrix, y, heads)
    check_square(values.shape[-1], d or y.shape[-1])
    return values


def check_square(rows: int, d: int) -> None:
    """A value matrix has a row for each coordinate.

    Raises:
        ValueError: More or fewer.
    """
    if rows != d:
        raise ValueError(f"value must have shape (d, d) or ([*batch,] heads, d, d) with d = {d}, got {rows} rows")


def check_images(query: Any, key: Any) -> None:
    """Refuse matrices on a space with a border, where sources are heard as images of their positions.

    ``K y`` of an image is no image of ``K y``, so who is near whom would hang on where the coordinates begin.

    Raises:
        ValueError: With the name of the matrix.
    """
    for name, matrix in (("query", query), ("key", key)):
        if matrix is not None:
            raise ValueError(
                f"{name} must be None where sources are heard through a border (Torus, mirror=True): a matrix has no "
                "periodic form; take kd.Circle() for periodic positions, or kd.Euclidean()"
            )


def _apply(matrix: Any, y: Array, heads: bool) -> Array:
    """``M y`` for every particle: (..., n, d) -> (..., n, d'), or (..., heads, n, d') in the presence of heads."""
    y = y[..., None, :, :] if heads else y
    if matrix is None:
        return y
    matrix = like(matrix, y)
    batch = tuple(matrix.shape[:-3])
    if matrix.ndim < 2 or matrix.shape[-1] != y.shape[-1] or (batch and batch != tuple(y.shape[:-3])):
        raise ValueError(
            f"query, key and value must have shape (d', d), (heads, d', d) or (*batch, heads, d', d) with "
            f"d = {y.shape[-1]}, got {tuple(matrix.shape)} for positions of shape {tuple(y.shape)}"
        )
    return y @ matrix.mT
