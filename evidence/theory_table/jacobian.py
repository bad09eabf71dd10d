"""Spectrum of a drift at a resting state on the sphere, by differences."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd


def tangent_spectrum(dynamics: kd.Dynamics, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Real parts of the n (d - 1) eigenvalues in the tangent space of x (n, d), rising; error of order step^2."""
    n, d = x.shape
    frames = np.stack([np.linalg.svd(row[None])[2][1:] for row in x])  # (n, d - 1, d), orthogonal to each token
    moves = np.zeros((n, d - 1, n, d))
    for i in range(n):
        moves[i, :, i] = frames[i]
    moves = moves.reshape(n * (d - 1), n, d)
    ahead, behind = (dynamics.drift(0.0, kd.Sphere().retract(x + sign * step * moves)) for sign in (1.0, -1.0))
    columns = np.einsum("mid,ikd->mik", (ahead - behind) / (2.0 * step), frames).reshape(len(moves), -1)
    return np.sort(np.linalg.eigvals(columns).real)
