"""A grid of pictures, pixel by pixel."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import krause_dynamics as kd
from tests.keywords.row import row

SHOWN = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 3)).astype(np.uint8)
GRID, SAVE = "kd.plots.picture_grid", "kd.plots.save_pictures"
grid = kd.plots.picture_grid


@row(GRID, "pictures", SHOWN, SHOWN[..., :1], "bytes are shown as they are; one channel is grey")
def pictures(first, second):
    np.testing.assert_array_equal(grid(first)[:3, :4], first[0])
    np.testing.assert_array_equal(grid(second)[:3, :4], second[0].repeat(3, axis=-1))


@row(GRID, "columns", None, 5, "pictures a row; about as many rows by default")
def columns(first, second):
    assert grid(SHOWN, columns=first).shape == (7, 14, 3)
    assert grid(SHOWN, columns=second).shape == (3, 24, 3)


@row(GRID, "gap", 0, 3, "grey pixels between two pictures")
def gap(first, second):
    assert grid(SHOWN, columns=5, gap=first).shape == (3, 20, 3)
    assert (grid(SHOWN, columns=5, gap=second)[:, 4:7] == 192).all()


@row(GRID, "levels", 256, 2, "the last level is white, beyond it there is nothing")
def levels(first, second):
    assert grid(np.full((1, 2, 2), 255)).max() == first - 1
    assert grid(np.ones((1, 2, 2), int), levels=second).min() == 255
    with pytest.raises(ValueError, match=r"levels 0\.\.1"):
        grid(np.full((1, 2, 2), 2), levels=second)


def saved(shown=SHOWN, parameters=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = kd.plots.save_pictures(shown, Path(folder) / "a", parameters or {}, **options)
        with Image.open(path) as picture:
            return path.name, np.asarray(picture), json.loads(path.with_suffix(".json").read_text())


@row(SAVE, "pictures", SHOWN, SHOWN[:1], "without loss")
def save(first, second):
    for shown in (first, second):
        np.testing.assert_array_equal(saved(shown, scale=1)[1], grid(shown))


@row(SAVE, "path", "a", "a.jpg", "a PNG, and nothing else")
def path(first, second):
    assert saved()[0] == f"{first}.png"
    with pytest.raises(ValueError, match=r"path must end in \.png"):
        kd.plots.save_pictures(SHOWN, second, {})


@row(SAVE, "parameters", {}, {"seed": 3}, "lie beside it")
def parameters(first, second):
    for given in (first, second):
        assert saved(parameters=given)[2] == given


@row(SAVE, "scale", 1, 3, "screen pixels a pixel")
def scale(first, second):
    one, three = (saved(scale=factor)[1] for factor in (first, second))
    np.testing.assert_array_equal(three[1::3, 1::3], one)


@row(SAVE, "grid", {}, {"columns": 5}, "options of `picture_grid`")
def options(first, second):
    for given in (first, second):
        np.testing.assert_array_equal(saved(scale=1, **given)[1], grid(SHOWN, **given))
