"""Interaction energies: what symmetric rules climb or descend, and whether a run really does.

A rule that treats pairs symmetrically has an energy, written here with the masses m_i of the rule's own measure (1/n
each for n particles; ``log_mass = 0`` gives unit masses, n^2 times as much), and computed from the log-partition and
mean of `aggregate`:

| score | energy E | along its flow | source |
|---|---|---|---|
| DotProduct(beta) | ``1/(2 beta) sum_ij m_i m_j exp(beta <x_i, x_j>)`` | grows | 2312.10794, section 3 |
| Gaussian(sigma) | ``1/2 sum_ij m_i m_j exp(-|x_i - x_j|^2 / (2 sigma^2))`` | grows | potential of mean shift |
| ... with Within(R) | the same with ``exp(-R^2 / (2 sigma^2))`` taken off each pair within R: continuous | grows | |
| Flat with Within(R) | ``sum_ij m_i m_j min(R^2, |x_i - x_j|^2)`` | falls | Roozbehani et al. 2008; 1412.6546 |

In all of them ``dE/dx_i = kappa m_i Z_i w_i`` with the direction w_i = A_i (dot product) or A_i - x_i, and kappa = 1,
1/sigma^2, -4. A normalised rule moves along w_i, so ``dE/dt = kappa sum_i m_i Z_i |x_i'|^2``; a per-capita rule moves
along Z_i w_i, so ``dE/dt = kappa sum_i m_i |x_i'|^2``: a gradient flow with the weights g_i = m_i Z_i or m_i.

On trained models the energy is a diagnostic, not an invariant: nothing there says that it must be monotone.
"""

from krause_dynamics.analysis.energies.along_run import GradientFlow, along, gradient_flow
from krause_dynamics.analysis.energies.state import energy, gradient, kappa, log_energy

__all__ = ["GradientFlow", "along", "energy", "gradient", "gradient_flow", "kappa", "log_energy"]
