"""Sets of pictures in the formats that they are published in: idx, CIFAR, arrays of the usual MNIST pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics.training.formats.files import Reader, listed
from krause_dynamics.training.formats.values import Found, Pictures

IDX = "the idx files train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k (.gz allowed)"
CIFAR = "the CIFAR batches (data_batch_1.bin ... test_batch.bin, the same without .bin, or those of CIFAR-100)"
PICKLE = "a pickle (.pkl, .pkl.gz) of three pairs of arrays: pictures and classes for train, validation and test"
SIDE, RECORD = 32, 3 * 32 * 32


def idx(folder: Path, sha256: Mapping[str, str], **_: Any) -> Found:
    """MNIST, Fashion-MNIST, EMNIST: idx files of bytes, pictures and classes apart."""
    reader = Reader(folder, IDX, sha256)
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        names = [f"{prefix}-{what}" for what in ("images", "labels")]
        paths = [reader.need(f"{n}-idx{k}-ubyte", f"{n}.idx{k}-ubyte") for n, k in zip(names, (3, 1), strict=True)]
        pixels, labels = (_idx(reader, path) for path in paths)
        if pixels.ndim == 3:
            pixels = pixels[:, None]
        parts[part] = _pair(paths[0], pixels, labels)
    return _numbered(reader, parts)


def _idx(reader: Reader, path: Path) -> np.ndarray:
    """An idx file of unsigned bytes: 0, 0, 8, number of axes, each length in four bytes, then the entries."""
    raw = reader.content(path)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        begin = raw[:4].hex(" ") or "nothing"
        raise ValueError(f"{path} must be an idx file of bytes, which begins 00 00 08, got {begin}")
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4).tolist() if len(raw) >= 4 + 4 * axes else []
    if not shape or len(raw) != 4 + 4 * axes + int(np.prod(shape)):
        raise ValueError(f"{path} is damaged: its header says {shape}, it has {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def cifar(folder: Path, sha256: Mapping[str, str], **_: Any) -> Found:
    """CIFAR-10 and CIFAR-100, binary or Python batches, in the folder itself or in the one that the archive makes."""
    inner = ("cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python")
    within = [folder / name for name in inner if (folder / name).is_dir()]
    reader = Reader(within[0] if within else folder, CIFAR, sha256)
    hundred = reader.find("train.bin", "train") is not None
    names = ["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]
    parts = {}
    for part, group in (("train", names), ("test", ["test"] if hundred else ["test_batch"])):
        paths = [reader.need(f"{name}.bin", name) for name in group]
        batches = [_batch(reader, path, hundred) for path in paths]
        pixels, labels = (np.concatenate(list(column)) for column in zip(*batches, strict=True))
        parts[part] = _pair(paths[0], pixels.reshape(-1, 3, SIDE, SIDE), labels)
        if (highest := int(parts[part].labels.max())) >= (count := 100 if hundred else 10):
            raise ValueError(f"{paths[0].parent} must hold classes 0 to {count - 1}, got {highest}: damaged?")
    return _numbered(reader, parts)


def _batch(reader: Reader, path: Path, hundred: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 3072) and fine classes of one batch."""
    if path.suffix == ".bin":
        raw, first = reader.content(path), 2 if hundred else 1
        if not raw or len(raw) % (first + RECORD):
            raise ValueError(f"{path} must hold records of {first + RECORD} bytes, got {len(raw)} bytes: damaged?")
        rows = np.frombuffer(raw, np.uint8).reshape(-1, first + RECORD)
        return rows[:, first:], rows[:, first - 1]
    content = reader.unpickled(path)
    try:
        pixels, labels = content[b"data"], content[b"fine_labels" if hundred else b"labels"]
        return np.asarray(pixels, np.uint8).reshape(-1, RECORD), np.asarray(labels)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold 'data' and 'labels' of a CIFAR batch ({error!r})") from error


def arrays(folder: Path, sha256: Mapping[str, str], **_: Any) -> Found:
    """The pickle of MNIST in three parts (``mnist.pkl.gz``): square pictures of 0 to 1, or of 0 to 255."""
    reader = Reader(folder, PICKLE, sha256)
    path = reader.need("mnist.pkl", *sorted(p.name for p in folder.glob("*.pkl*")))
    content = reader.unpickled(path)
    try:
        train, validation, test = ((np.asarray(x), np.asarray(y)) for x, y in content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold three pairs of pictures and classes ({error})") from error
    named = {"train": train, "validation": validation, "test": test}
    return _numbered(reader, {part: _pair(path, _bytes(path, x), y) for part, (x, y) in named.items()})


def _bytes(path: Path, x: np.ndarray) -> np.ndarray:
    """Square pictures of one channel as bytes; floats up to 1 are shares of 255 (256 in some files)."""
    if x.dtype.kind not in "buif" or x.ndim < 2 or not x.size:
        raise ValueError(f"{path} must hold pictures as numbers, a row each, got {x.dtype} of shape {x.shape}")
    pixels = x[0].size
    side = round(pixels**0.5)
    if side * side != pixels:
        raise ValueError(f"{path} must hold square pictures of one channel, got {pixels} values each")
    low, high = float(x.min()), float(x.max())  # NaN where any value is
    if not (low >= 0.0 and high <= 255.0):
        raise ValueError(f"{path} must hold values of 0 to 1 or 0 to 255, got {low:g} to {high:g}")
    if x.dtype.kind == "f" and high <= 1.0:
        x = np.round(x * (256.0 if high < 1.0 else 255.0)).clip(0, 255)
    return x.astype(np.uint8).reshape(len(x), 1, side, side)


def _pair(path: Path, pixels: np.ndarray, labels: np.ndarray) -> Pictures:
    """Pictures and classes of the same number."""
    if pixels.ndim != 4 or labels.ndim != 1 or len(pixels) != len(labels) or not len(labels):
        raise ValueError(f"{path} and its classes must be as many, got shapes {pixels.shape} and {labels.shape}")
    whole = labels.dtype.kind in "biuf" and np.isfinite(labels).all() and not (labels != np.floor(labels)).any()
    if not whole or labels.min() < 0:
        worst = labels.min() if whole else labels[0]
        raise ValueError(f"classes of {path} must be whole numbers from 0, got {labels.dtype} such as {worst}")
    return Pictures(pixels, labels.astype(np.int64))


def _numbered(reader: Reader, parts: Mapping[str, Pictures]) -> Found:
    """Parts whose classes are those of the training part, counted from 0; their names are the numbers of the files."""
    shapes = {part: x.pixels.shape[1:] for part, x in parts.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{part} {' x '.join(map(str, shape))}" for part, shape in shapes.items())
        raise ValueError(f"{reader.folder} must hold pictures of one size, got (channels, height, width) {told}")
    known = np.unique(parts["train"].labels)
    for part, pictures in parts.items():
        if len(strange := np.setdiff1d(pictures.labels, known)):
            raise ValueError(f"{part} of {reader.folder} has classes that train has not: {listed(map(str, strange))}")
    counted = {part: Pictures(x.pixels, np.searchsorted(known, x.labels)) for part, x in parts.items()}
    return Found(**counted, classes=tuple(map(str, known)), checksums=reader.checksums)
