"""Datasets of `kd.checkpoints` and `kd.models` written down: what their functions give, here random and small."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

import krause_dynamics as kd
from tests.keywords import figures

BLOCKS = {"block": np.arange(1, 5)}
HEADS = ("sequence", "block", "head")  # 3 sequences, 4 blocks, 2 heads


def forecast(seed: int = 0) -> xarray.Dataset:
    """Predicted and measured of three sequences, the last one without."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(1, 6, (2, 2, 3)).astype(float)
    whole[:, :, 2] = np.nan
    arrays = {
        "contraction": (("side", "sequence", "block"), rng.uniform(0.5, 1.5, (2, 3, 4))),
        "winning_mode": (("side", "sequence"), whole[0]),
        "clusters": (("side", "sequence"), whole[1]),
        "effective_beta": (HEADS, rng.uniform(1, 9, (3, 4, 2)), {"long_name": "effective beta"}),
        "ov_real": (("block", "head", "eigenvalue"), rng.normal(size=(4, 2, 3))),
        "ov_imaginary": (("block", "head", "eigenvalue"), rng.normal(size=(4, 2, 3))),
    }
    return xarray.Dataset(arrays, coords={"side": ["predicted", "measured"], **BLOCKS})


def confidence(seed: int = 0) -> xarray.Dataset:
    """Shares, and distances in units of sigma."""
    rng = np.random.default_rng(seed)
    names = ("share_separated", "share_near_centroid", "share_theorem", "share_within_sigma", "distance")
    return xarray.Dataset({name: (HEADS, rng.uniform(size=(3, 4, 2))) for name in names}, coords=BLOCKS)


def branches(seed: int = 0) -> xarray.Dataset:
    """Two branches and both mixed."""
    rng = np.random.default_rng(seed)
    names = ("importance_first", "first_token_score", "entropy", "even_importance_first", "even_first_token_score")
    arrays: dict[str, Any] = {name: (("branch", *HEADS), rng.uniform(size=(3, 3, 4, 2))) for name in names}
    arrays["gate"] = (
        ("branch", "sequence", "block"),
        np.concatenate([rng.uniform(size=(2, 3, 4)), np.ones((1, 3, 4))]),
    )
    return xarray.Dataset(arrays, coords={"branch": ["softmax", "krause", "mixed"], **BLOCKS})


def pairs(seed: int = 0) -> dict[str, xarray.Dataset]:
    """Two stacks, and what the decoder hears of the encoder."""
    rng = np.random.default_rng(seed)
    arrays = {
        "place_by_quarter": ((*HEADS, "quarter"), rng.uniform(size=(3, 4, 2, 4))),
        "strongest_importance": (HEADS, rng.uniform(size=(3, 4, 2)), {"long_name": "attention that it receives"}),
    }
    cross = xarray.Dataset(arrays, coords={**BLOCKS, "head": [0, 1]})
    cross["sources"] = ("sequence", np.array([5, 5, 5]))
    return {"encoder": figures.analysis(seed), "decoder": figures.analysis(seed + 1), "cross": cross}


def tracks() -> xarray.Dataset:
    """Six tokens in three layers: two pairs, of which one loses a token to a group of three."""
    number = np.array([[0, 0, 1, 1, -1, -1], [0, 0, 1, 1, 2, 2], [-1, 0, 2, -1, 2, 2]])
    size = np.array([[2, 2, 0], [2, 2, 2], [1, 0, 3]])
    arrays = {
        "number": (("layer", "token"), number),
        "size": (("layer", "track"), size),
        "words": ("track", np.array(["a | b", "$c x2", " d |  e"])),
    }
    texts = ["a", "b", "$c", "$c", "d", "\n"]
    coords = {"layer": np.arange(3), "track": np.arange(3), "text": ("token", texts)}
    return xarray.Dataset(arrays, coords=coords, attrs={"radius": 0.7})


def interval(seed: int = 0) -> xarray.Dataset:
    """Means of an analysis and where they may lie."""
    return kd.checkpoints.interval(figures.analysis(seed))
