"""Rows of kd.checkpoints.patches: norms on a grid that are known."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

PATCHES = "kd.checkpoints.patches"


def run(largest=10.0):
    """Two layers of one picture: a class token of norm 5 and 2 x 2 patches of norms 1, 1, 1 and another."""
    norms = np.array([5.0, 1.0, 1.0, 1.0, largest])
    states = norms[:, None] * np.eye(5)[:, :5]
    return kd.Trajectory(
        times=np.arange(2.0),
        positions=np.stack([states[None]] * 2),
        extras={"grid": np.array([2, 2]), "beside_grid": np.array([1, 0])},
    )


@row(PATCHES, "run", 10.0, 2.0, "norms over the median patch, where they stand; orthogonal patches have cosine 0")
def _(first, second):
    pytest.importorskip("transformers")
    for largest in (first, second):
        found = kd.checkpoints.patches(run(largest))
        assert found["patch_norm"].values[0, 0].tolist() == [[1.0, 1.0], [1.0, largest]]
        assert found["special_norm"].values.ravel().tolist() == [5.0, 5.0]
        np.testing.assert_allclose(found["patch_cosine"], 0.0, atol=1e-12)


@row(PATCHES, "outlier", 3.0, 11.0, "share of patches above that many medians")
def _(first, second):
    pytest.importorskip("transformers")
    shares = [float(kd.checkpoints.patches(run(), outlier=limit)["outlier_share"][0, 0]) for limit in (first, second)]
    assert shares == [0.25, 0.0]
    with pytest.raises(ValueError, match="outlier"):
        kd.checkpoints.patches(run(), outlier=0.5)
