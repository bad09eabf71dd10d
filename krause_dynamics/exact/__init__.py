"""Exact faster forms of the aggregate in numpy and numba; none of them imports torch."""
