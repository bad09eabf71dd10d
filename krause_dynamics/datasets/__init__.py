"""Small stored results, to look at and draw at once: two runs, a phase diagram, an analysis of a trained model.

>>> from krause_dynamics import datasets
>>> run = datasets.load("circle")
>>> len(run), run.final.shape
(31, (64, 2))

Each is what one function of `recipes` returned, and can be computed again by it.
"""

from krause_dynamics.datasets.stored import NAMES, load

__all__ = ["NAMES", "load"]
