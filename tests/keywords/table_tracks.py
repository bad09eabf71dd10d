"""Rows of kd.clusters.track and kd.checkpoints.tracks: clusters followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import clusters
from tests.keywords.row import row

# Two pairs meet; then the first point leaves with a new one, and the rest lives on.
LABELS = np.array([[0, 0, 1, 1, 2], [3, 3, 3, 3, 0], [0, 1, 1, 1, 0]])
TRACKS = "kd.checkpoints.tracks"


@row("kd.clusters.track", "labels", LABELS, LABELS[:, ::-1], "tracks, parents and heirs by hand, whatever the order")
def _(first, second):
    found = clusters.track(first)
    assert found.numbers.tolist() == [[0, 0, 1, 1, -1], [0, 0, 0, 0, -1], [2, 0, 0, 0, 2]]
    assert (found.first.tolist(), found.last.tolist()) == ([0, 0, 2], [2, 0, 2])
    assert (found.parent.tolist(), found.heir.tolist()) == ([-1, -1, 0], [-1, 0, -1])
    assert found.sizes.tolist() == [[2, 2, 0], [4, 0, 0], [3, 0, 2]]
    assert repr(found) == "Tracks: 3 clusters followed through 3 states, the longest through 3 states"
    other = clusters.track(second)
    assert sorted(other.sizes.T.tolist()) == sorted(found.sizes.T.tolist())
    with pytest.raises(TypeError, match="labels must be whole numbers"):
        clusters.track(first * 0.5)


@row("kd.clusters.track", "members", 2, 1, "smaller clusters have no track; of 1 every point is on one")
def _(first, second):
    assert (clusters.track(LABELS, members=first).numbers == -1).sum() == 2
    assert len(clusters.track(LABELS, members=second)) == 3  # the last point's cluster takes in the first
    assert (clusters.track(LABELS, members=second).numbers >= 0).all()


@row("kd.clusters.Tracks", "numbers", [[0, 0]], [[0, -1]], "kept as given")
@row("kd.clusters.Tracks", "first", [0], [1], "kept as given")
@row("kd.clusters.Tracks", "last", [0], [1], "kept as given")
@row("kd.clusters.Tracks", "parent", [-1], [0], "kept as given")
@row("kd.clusters.Tracks", "heir", [-1], [0], "kept as given")
@row("kd.clusters.Tracks", "sizes", [[2]], [[1]], "kept as given")
def _(first, second):
    for value in (first, second):
        array = np.array(value)
        assert clusters.Tracks(array, array, array, array, array, array).heir is array


def run(seed=0):
    """Three layers of two sequences: directions at angles in degrees."""
    angles = [[0, 2, 90, 92, 180], [0, 2, 4, 6, 180], [90, 92, 94, 200, 202]][seed:] + [[0] * 5] * seed
    other = [[0, 1, 2, 3, 4]] * 3
    both = np.radians(np.array([angles, other]).swapaxes(0, 1))
    return kd.Trajectory(
        times=np.arange(3.0),
        positions=np.stack([np.cos(both), np.sin(both)], -1),
        extras={"lengths": np.array([5, 4]), "token_ids": np.array([[7, 7, 8, 9, 7], [1, 2, 3, 4, -1]])},
    )


@row(TRACKS, "run", 0, 1, "tracks of those layers, by hand")
def _(first, second):
    pytest.importorskip("transformers")
    found = kd.checkpoints.tracks(run(first))
    assert found["number"].values.tolist() == [[0, 0, 1, 1, -1], [0, 0, 0, 0, -1], [0, 0, 0, 2, 2]]
    assert found["heir"].values.tolist() == [-1, 0, -1]
    assert kd.checkpoints.tracks(run(second))["number"].values.tolist() == [[0] * 4 + [-1], [0, 0, 0, 1, 1], [0] * 5]


@row(TRACKS, "radius", 0.7, 0.05, "a chord of 0.05 is 2.9 degrees: 2 are joined by both, chains too; 20 by neither")
def _(first, second):
    pytest.importorskip("transformers")
    wide, narrow = (kd.checkpoints.tracks(run(), radius=radius)["number"] for radius in (first, second))
    np.testing.assert_array_equal(wide, narrow)
    assert (kd.checkpoints.tracks(run(), radius=0.03)["number"] == -1).all()
    with pytest.raises(ValueError, match="radius"):
        kd.checkpoints.tracks(run(), radius=2.5)


@row(TRACKS, "sequence", 0, 1, "that one, as long as it is")
def _(first, second):
    pytest.importorskip("transformers")
    assert kd.checkpoints.tracks(run(), sequence=first).sizes["token"] == 5
    assert (kd.checkpoints.tracks(run(), sequence=second)["number"] == 0).all()
    assert kd.checkpoints.tracks(run(), sequence=second).sizes["token"] == 4
    with pytest.raises(ValueError, match="one of the 2 of a recorded run"):
        kd.checkpoints.tracks(run(), sequence=2)


class Letters:
    """Decodes 7, 8, 9 as g, h, i."""

    @staticmethod
    def decode(ids):
        return "".join(chr(90 + i + 6) for i in ids)


@row(TRACKS, "tokenizer", None, Letters(), "the text of every token; without one its id; or texts as given")
def _(first, second):
    pytest.importorskip("transformers")
    told = lambda tokenizer: kd.checkpoints.tracks(run(), tokenizer=tokenizer)  # noqa: E731
    assert told(first)["text"].values.tolist() == ["7", "7", "8", "9", "7"]
    assert told(second)["text"].values.tolist() == ["g", "g", "h", "i", "g"]
    assert told(second)["words"].values.tolist() == ["g x2 | h | i", "h | i", "i | g"]
    assert told(list("abcde"))["words"].values[2] == "d | e"
    with pytest.raises(ValueError, match="texts of the 5 tokens, got 2"):
        told(["a", "b"])


@row(TRACKS, "members", 2, 3, "clusters of fewer tokens have no track")
def _(first, second):
    pytest.importorskip("transformers")
    assert kd.checkpoints.tracks(run(), members=first).sizes["track"] == 3
    assert kd.checkpoints.tracks(run(), members=second)["number"].values.tolist() == [
        [-1] * 5, [0, 0, 0, 0, -1], [0, 0, 0, -1, -1],
    ]  # fmt: skip
