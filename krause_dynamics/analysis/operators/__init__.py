"""The row-stochastic matrix of a state: who can influence whom in the end, and how fast opinions mix.

What a matrix can do for ever is decided by its *support* (which pairs are admitted), never by ``weights > 0``: weights
of admitted pairs underflow, and a spurious zero would invent a cluster. So the structure comes from
`interaction.reference.admitted`, and numbers from the weights.
"""

from krause_dynamics.analysis.operators.classes import Structure, structure
from krause_dynamics.analysis.operators.matrices import matrix, support
from krause_dynamics.analysis.operators.spectra import dobrushin, eigenvalues, spectral_gap

__all__ = ["Structure", "dobrushin", "eigenvalues", "matrix", "spectral_gap", "structure", "support"]
