"""Banded attention on the CPU: compiled row by row (`rows`), or as matrix products of blocks of rows (`blocks`)."""
