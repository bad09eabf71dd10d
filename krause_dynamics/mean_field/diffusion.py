"""The heat semigroup of the cells, exactly: positive, conservative, and of any step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from krause_dynamics.mean_field.cells import Cells, LatitudeCells


class Diffusion(ABC):
    """``exp(dt noise^2/2 L)`` for the discrete Laplacian L of the cells; its entries are probabilities.

    An explicit scheme would bind the step to width^2/noise^2, and implicit ones of second order are not positive.
    """

    def __init__(self, noise: float) -> None:
        self.rate = noise**2 / 2

    def __call__(self, mass: np.ndarray, dt: float) -> np.ndarray:
        """Masses (n,) after a time ``dt``."""
        spread = np.maximum(self._transform(mass, dt * self.rate), 0.0)  # transforms leave -1e-17 in empty cells
        return spread * (mass.sum() / spread.sum())

    @abstractmethod
    def _transform(self, mass: np.ndarray, time: float) -> np.ndarray:
        """The semigroup of L at ``time``."""


class _Periodic(Diffusion):
    def __init__(self, noise: float, cells: Cells) -> None:
        super().__init__(noise)
        mode = np.arange(cells.count // 2 + 1)
        self.eigenvalues = -((2 * np.sin(np.pi * mode / cells.count) / cells.width) ** 2)

    def _transform(self, mass: np.ndarray, time: float) -> np.ndarray:
        return np.fft.irfft(np.fft.rfft(mass) * np.exp(self.eigenvalues * time), len(mass))


class _Walled(Diffusion):
    def __init__(self, noise: float, cells: Cells) -> None:
        super().__init__(noise)
        mode = np.arange(cells.count)
        self.eigenvalues = -((2 * np.sin(np.pi * mode / (2 * cells.count)) / cells.width) ** 2)

    def _transform(self, mass: np.ndarray, time: float) -> np.ndarray:
        from scipy.fft import dct, idct

        return idct(dct(mass) * np.exp(self.eigenvalues * time))


class _Latitudes(Diffusion):
    """The Laplace-Beltrami operator of zonal functions: symmetric after weighting with sqrt(volume)."""

    def __init__(self, noise: float, cells: LatitudeCells) -> None:
        super().__init__(noise)
        from scipy.linalg import eigh_tridiagonal

        coupling = cells.areas[1:-1] / np.diff(cells.centres)
        diagonal = -(np.concatenate([coupling, [0.0]]) + np.concatenate([[0.0], coupling])) / cells.volumes
        self.root = np.sqrt(cells.volumes)
        self.eigenvalues, self.vectors = eigh_tridiagonal(diagonal, coupling / (self.root[:-1] * self.root[1:]))

    def _transform(self, mass: np.ndarray, time: float) -> np.ndarray:
        modes = self.vectors.T @ (mass / self.root)
        return self.root * (self.vectors @ (modes * np.exp(np.minimum(self.eigenvalues, 0.0) * time)))


def diffusion(cells: Cells, periodic: bool, noise: float) -> Diffusion | None:
    """The diffusion of Brownian increments ``noise dB`` on the cells, or None without noise."""
    if noise == 0:
        return None
    if isinstance(cells, LatitudeCells):
        return _Latitudes(noise, cells)
    return _Periodic(noise, cells) if periodic else _Walled(noise, cells)
