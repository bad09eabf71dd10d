"""What is found of a trained vision transformer on pictures: states, maps of attention, bandwidths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csgraph, csr_array

import krause_dynamics as kd
from evidence import twins


@dataclass(frozen=True)
class Looked:
    """What one call each of `kd.analyze` and `kd.checkpoints.record` finds of a model on pictures.

    Attributes:
        analysis: The Dataset.
        weights: (blocks, pictures, heads, tokens, tokens).
        sigma: Learned bandwidth of each block; empty of softmax.
    """

    analysis: Any
    weights: np.ndarray
    sigma: list[float]

    @classmethod
    def at(cls, model: Any, pixels: np.ndarray) -> Looked:
        """Look at a model."""
        weights = kd.checkpoints.record(model, pixels, attention="weights").extras["attention"]
        learned = [layer.attention.log_sigma for layer in model.layers if model.config.score != "dot"]
        sigma = [float(x.weight.detach().exp().mean()) for x in learned]
        return cls(kd.analyze(model, pixels, eps=(twins.EPS,)), np.asarray(weights), sigma)

    def heard(self) -> np.ndarray:
        """Keys of a patch with any weight, mean over pictures, heads and patches, (blocks,)."""
        return (self.weights[:, :, :, 1:] > 0).sum(-1).mean((1, 2, 3))

    def groups(self) -> np.ndarray:
        """Closed classes of each map, (blocks, pictures, heads): groups of tokens that hear nobody outside.

        As many as the eigenvalue 1 of the map has: what the theorem of separated groups asks to be more than one.
        """
        maps = self.weights.reshape(-1, *self.weights.shape[-2:]) > 0
        return np.array([closed_classes(heard) for heard in maps]).reshape(self.weights.shape[:3])

    def effective(self) -> np.ndarray:
        """1 / sum_k A_ik^2 of the patches: keys that share the weight of a row, (blocks,)."""
        return (1.0 / (self.weights[:, :, :, 1:] ** 2).sum(-1)).mean((1, 2, 3))


def closed_classes(heard: np.ndarray) -> int:
    """Strongly connected components of a graph (tokens, tokens), row hears column, that no edge leaves."""
    number, label = csgraph.connected_components(csr_array(heard), directed=True, connection="strong")
    rows, columns = np.nonzero(heard)
    left = label[rows][label[rows] != label[columns]]
    return int(number) - len(np.unique(left))
