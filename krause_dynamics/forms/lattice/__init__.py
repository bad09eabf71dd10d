"""Uniform grids: sums over them as convolutions of tables."""
