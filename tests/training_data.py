"""Small data sets in the file formats that people have them in, made on the fly."""

from __future__ import annotations

import gc
import gzip
import json
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np


@contextmanager
def light() -> Iterator[None]:
    """Runs without their figure and without a collection of all that the libraries hold: ten times as fast."""
    gc.freeze()
    try:
        with mock.patch("krause_dynamics.training.records.draw_curves"):
            yield
    finally:
        gc.unfreeze()


def pictures(number, seed=0, side=8, channels=1):
    """(pixels (n, c, side, side), classes (n,)): the brightness tells the class of three."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    pixels = rng.integers(0, 60, (number, channels, side, side)) + 90 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def idx(folder: Path, train=48, test=24, side=8):
    """MNIST's format; half of the files packed."""
    folder.mkdir(exist_ok=True)
    for seed, (part, number) in enumerate((("train", train), ("t10k", test))):
        x, y = pictures(number, seed, side)
        content = b"\0\0\x08\x03" + struct.pack(">III", number, side, side) + x.tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content, 1))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", number) + y.tobytes())
    return folder


def _parts(number):
    return [*((f"data_batch_{i}", pictures(number, i, 32, 3)) for i in range(1, 6)),
            ("test_batch", pictures(number, 6, 32, 3))]  # fmt: skip


def cifar_binary(folder: Path, number=12):
    """The binary batches in the folder that the archive makes."""
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in _parts(number):
        (inner / f"{name}.bin").write_bytes(np.concatenate([y[:, None], x.reshape(number, -1)], 1).tobytes())
    return folder


def cifar_python(folder: Path, number=12):
    """The Python batches."""
    folder.mkdir(exist_ok=True)
    for name, (x, y) in _parts(number):
        content = {b"data": x.reshape(number, -1), b"labels": y.tolist(), b"batch_label": b"one"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def mnist_pickle(folder: Path, number=24, side=8):
    """``mnist.pkl.gz``: three pairs of floats in [0, 1) and classes."""
    folder.mkdir(exist_ok=True)
    parts = []
    for seed in range(3):
        x, y = pictures(number, seed, side)
        parts.append(((x.reshape(number, -1) / np.float32(256)).astype(np.float32), y.astype(np.int64)))
    (folder / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps(tuple(parts), protocol=2), 1))
    return folder


def picture_folders(folder: Path, number=12):
    """PNG files, a folder a class, a part each."""
    from PIL import Image

    for seed, part in enumerate(("train", "test")):
        for i, (x, y) in enumerate(zip(*pictures(number, seed, 12, 3), strict=True)):
            inside = folder / part / ("dark", "grey", "light")[y]
            inside.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.transpose(1, 2, 0)).save(inside / f"{i}.png")
    return folder


WORDS = "the cat sat on the mat and the dog lay by the door while rain fell on the town "


def texts(folder: Path, length=2000):
    """train.txt, valid.txt, test.txt."""
    folder.mkdir(exist_ok=True)
    for name, share in (("train", 1.0), ("valid", 0.3), ("test", 0.3)):
        (folder / f"{name}.txt").write_text((WORDS * 100)[: int(share * length)])
    return folder


def json_lines(folder: Path, number=40):
    """One file of documents."""
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"text": (WORDS * 3)[i : i + 120]}) for i in range(number)]
    (folder / "documents.jsonl").write_text("\n".join(rows) + "\n")
    return folder
