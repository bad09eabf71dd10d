"""Pictures side by side, pixel by pixel, as one PNG."""

from __future__ import annotations

import io
import json
import os
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._arguments import FILE, Is, Maybe, Whole, affordable, reads
from krause_dynamics._files import check_target, with_ending, write_bytes

GREY = (192, 192, 192)  # of the gaps, neither the black nor the white of most pictures


@reads(columns=Maybe(Whole()), gap=Whole(0), levels=Whole(2))
def picture_grid(pictures: Any, *, columns: int | None = None, gap: int = 1, levels: int = 256) -> np.ndarray:
    """Pictures as one picture, row by row.

    Args:
        pictures: (count, height, width[, 1 or 3 channels]) levels, whole numbers from 0.
        columns: Pictures a row; by default as many as rows.
        gap: Pixels between two, grey.
        levels: Number of levels; the last is white.

    Returns:
        (height, width, 3) bytes.

    Raises:
        TypeError: Levels that are not whole numbers.
        ValueError: Another shape, no pictures, or levels beyond the last.
    """
    array = np.asarray(pictures)
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3) or not array.size:
        raise ValueError(f"pictures must have shape (count, height, width[, 1 or 3]), got {np.shape(pictures)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"pictures must hold whole numbers, levels from 0, got {array.dtype}")
    if array.min() < 0 or array.max() >= levels:
        raise ValueError(f"pictures must hold levels 0..{levels - 1}, got {array.min()} to {array.max()}; see levels=")
    bytes_ = np.rint(array * (255.0 / (levels - 1))).astype(np.uint8)
    count, height, width, _ = array.shape
    across = min(count, ceil(sqrt(count)) if columns is None else columns)
    down = ceil(count / across)
    affordable("gap and columns: pixels of the picture", (down * (height + gap)) * (across * (width + gap)))
    grid = np.empty((down * (height + gap) - gap, across * (width + gap) - gap, 3), np.uint8)
    grid[:] = GREY
    for i, picture in enumerate(bytes_):
        top, left = (i // across) * (height + gap), (i % across) * (width + gap)
        grid[top : top + height, left : left + width] = picture
    return grid


@reads(path=FILE, parameters=Is(dict, "{'seed': 0}"), scale=Whole(1, 1000))
def save_pictures(
    pictures: Any, path: str | os.PathLike[str], parameters: dict[str, Any], *, scale: int = 2, **grid: Any
) -> Path:
    """Write pictures side by side as a PNG without loss and, beside it, a JSON file of what made them.

    Args:
        pictures: As in `picture_grid`.
        path: Target, ``.png``; without an ending it gets it.
        parameters: Everything that is needed to make them again: command, model, seed.
        scale: Screen pixels a pixel; 2 shows 28 x 28 pictures at a readable size.
        **grid: ``columns``, ``gap`` and ``levels`` of `picture_grid`.

    Returns:
        Path of the PNG.

    Raises:
        TypeError: If ``parameters`` holds something that JSON cannot, before anything is written.
        ValueError: Another ending, no place where a file can be written, or as `picture_grid`.
    """
    from PIL import Image

    path = check_target("path", picture_path(path))
    text = json.dumps(parameters, indent=1, sort_keys=True) + "\n"
    whole = picture_grid(pictures, **grid)
    affordable("scale: pixels of the picture", whole.shape[0] * whole.shape[1] * scale**2)
    whole = whole.repeat(scale, axis=0).repeat(scale, axis=1)
    raw = io.BytesIO()
    Image.fromarray(whole).save(raw, format="PNG", optimize=True)
    write_bytes(path, raw.getvalue())
    write_bytes(path.with_suffix(".json"), text.encode())
    return path


def picture_path(path: str | os.PathLike[str]) -> Path:
    """Where a grid of pictures is written.

    Raises:
        ValueError: An ending that is not .png.
    """
    path = with_ending(path, ".png")
    if path.is_dir():
        return check_target("path", path)  # which says that it is a folder
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}")
    return path
