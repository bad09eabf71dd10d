"""Rows that draw: what artists hold, on which axes, in which colour; never pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from tests.keywords.row import row


def drawing(path: str, parameter: str, first: Any, second: Any, states: str) -> Callable[[Any], Any]:
    """A `row` whose figures are closed in the end."""

    def register(check: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        @wraps(check)
        def closing(first: Any, second: Any) -> None:
            try:
                check(first, second)
            finally:
                plt.close("all")

        row(path, parameter, first, second, states)(closing)
        return check

    return register


def assert_drawn_on(draw: Callable[..., Any], panel: int, read: Callable[[Any], Any], known: Any, **space: Any) -> None:
    """`ax=None` is a new figure; axes given are those returned, hold what is known, and no others are touched."""
    plt.close("all")
    alone = draw(ax=None)
    assert plt.get_fignums() == [alone.figure.number]
    figure, panels = plt.subplots(1, 2, subplot_kw=space)
    assert draw(ax=panels[panel]) is panels[panel]
    assert plt.get_fignums() == [alone.figure.number, figure.number]
    assert not panels[1 - panel].has_data()
    for ax in (alone, panels[panel]):
        np.testing.assert_allclose(read(ax), known, atol=1e-12)


def assert_colours(artists: Any, colours: list[str]) -> None:
    """Each line or collection is of one colour, transparency left aside."""
    for artist, colour in zip(artists, colours, strict=True):
        faces = [artist.get_color()] if hasattr(artist, "get_color") else artist.get_facecolor()
        assert {to_rgba(face)[:3] for face in faces} == {to_rgba(colour)[:3]}


def heights(ax: Any) -> list[np.ndarray]:
    """The ordinates of every line."""
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


def words(legend: Any) -> list[str]:
    """The entries of a legend."""
    return [text.get_text() for text in legend.get_texts()]


def mesh_values(ax: Any) -> np.ndarray:
    """Values of the one mesh on the axes, (rows, columns)."""
    (mesh,) = [artist for artist in ax.collections if type(artist).__name__ == "QuadMesh"]
    return np.asarray(mesh.get_array())


def analysis(seed: int = 0, **changes: Any) -> xarray.Dataset:
    """What `kd.analyze` gives, here random: 3 sequences of 8 tokens, 4 blocks of 2 heads."""
    rng = np.random.default_rng(seed)
    sizes = {"sequence": 3, "layer": 5, "tokens": 2, "radius": 3, "block": 4, "head": 2, "eps": 2}

    def uniform(*dims: str, low: float = 0.0, high: float = 1.0) -> Any:
        return dims, rng.uniform(low, high, [sizes[name] for name in dims])

    state, heads = ("sequence", "layer", "tokens"), ("sequence", "block", "head")
    counts = rng.integers(1, 9, [sizes[name] for name in (*state, "radius")])
    counts[0] = -1  # a sequence without tokens left
    arrays = {
        "length": ("sequence", np.full(3, 8)),
        "norm_ratio": uniform("sequence", "layer", low=1, high=30),
        "clusters": ((*state, "radius"), counts),
        "effective_clusters": uniform(*state, "radius", low=1, high=8),
        "sink_rate": uniform("block", "head", "eps", high=100),
        "strongest_key": (heads, rng.integers(-1, 3, (3, 4, 2))),
    }
    arrays |= {name: uniform(*state) for name in ("order_parameter", "mean_cosine", "residual")}
    arrays["effective_rank"] = uniform(*state, low=1, high=8)
    arrays |= {name: uniform(*heads) for name in ("first_token_score", "importance_first", "entropy")}
    meta = '{"model": "hand", "layers": 4, "dtype": "float32", "sequences": 3, "attention_path": "eager"}'
    coords = {
        "layer": np.arange(5), "tokens": ["all", "without_first"], "radius": [0.4, 0.8, 1.0],
        "block": np.arange(1, 5), "head": np.arange(2), "eps": [0.1, 0.3],
    }  # fmt: skip
    return xarray.Dataset(arrays | changes, coords=coords, attrs={"meta": meta})


def controlled() -> xarray.Dataset:
    """What `kd.analyze` gives under one control."""
    return xarray.concat([analysis(0), analysis(1)], "control", combine_attrs="override").assign_coords(
        control=["as given", "random_weights"]
    )


def with_spectrum(seed: int = 0) -> xarray.Dataset:
    """An analysis that holds singular values, four of them."""
    values = np.sort(np.random.default_rng(seed).uniform(size=(3, 5, 2, 4)))[..., ::-1]
    return analysis(seed).assign(spectrum=(("sequence", "layer", "tokens", "singular_value"), values))


def comparison(names: Any = ("a", "b", "c")) -> xarray.Dataset:
    """What `kd.compare` gives of three such analyses."""
    import krause_dynamics as kd

    return kd.compare({name: analysis(seed) for seed, name in enumerate(names)}, draws=50)


# Of six points on a line: 0, 1, 3, 3.5, 7 and 7.25 hundredths, twice, the second time ten times as far apart.
TREE = np.array(
    [[4, 5, 0.0025, 1, 1], [2, 3, 0.005, 1, 1], [0, 1, 0.01, 1, 1], [7, 8, 0.02, 2, 2], [6, 9, 0.035, 2, 4]]
)


def with_tree() -> xarray.Dataset:
    """An analysis with merge trees of six tokens, in the last layer and sequence 1 ten times as wide; 2 has none."""
    widths = 10.0 ** np.minimum(np.add.outer(np.arange(3), np.arange(5) == 4), 1)
    trees = np.broadcast_to(TREE, (3, 5, 5, 5)).copy()
    trees[..., 2] *= widths[..., None]
    trees = np.pad(trees, [(0, 0), (0, 0), (0, 2), (0, 0)], constant_values=np.nan)  # fewer joins than there is room
    trees[2] = np.nan
    names = ["one", "other", "chord", "size_of_one", "size_of_other"]
    return analysis().assign(merge_tree=(("sequence", "layer", "merge", "join"), trees)).assign_coords(join=names)
