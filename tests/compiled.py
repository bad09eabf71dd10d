"""Compiles what numba keeps on disk and many tests need: ``python -m tests.compiled``, beside the checks of types.

Two workers that begin the suite would compile the same loops twice.
"""

from __future__ import annotations

import numpy as np
import torch

import krause_dynamics as kd


def attention() -> None:
    """Banded attention in both precisions, a row and a block at a time, forward and backward."""
    for dtype in (torch.float64, torch.float32):
        for n in (12, 300):
            x = torch.linspace(0, 1, n, dtype=dtype)[:, None].requires_grad_()
            found = kd.aggregate(kd.krause(1.0, kd.Window(5) & kd.TopK(3)), x, impl="banded")
            (found.mean.sum() + found.log_partition.sum()).backward()


def particles() -> None:
    """Forms within a radius, opinions, clusters, and runs of many steps."""
    x = np.linspace(0, 1, 300)[:, None]
    for points in (x, np.concatenate([x, x], axis=1)):
        kd.aggregate(kd.bounded_confidence(0.1), points, impl="neighbours")
        kd.clusters.find(points, 0.1)
    kd.aggregate(kd.bounded_confidence(0.1), x, impl="sorted1d")
    kd.hegselmann_krause(x, 0.1)
    sphere = kd.Sphere()
    for rule in (kd.softmax(1.0), kd.krause(1.0)):
        kd.simulate(kd.Dynamics(rule, sphere), sphere.sample(8, 3, 0), 0.1, impl="compiled")


if __name__ == "__main__":
    attention()
    particles()
