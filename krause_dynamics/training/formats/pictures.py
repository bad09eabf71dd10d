"""Sets of pictures in the formats that people have them in: idx, CIFAR, arrays of the usual MNIST pickle, folders."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics.training.formats.files import Reader, listed
from krause_dynamics.training.formats.values import Found, Pictures

IDX = "the idx files train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k (.gz allowed)"
CIFAR = "the CIFAR batches (data_batch_1.bin ... test_batch.bin, the same without .bin, or those of CIFAR-100)"
PICKLE = "a pickle (.pkl, .pkl.gz) of three pairs of arrays: pictures and classes for train, validation and test"
FOLDERS = "a folder for each class holding pictures (or train/ and test/ with such folders)"
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SIDE, RECORD = 32, 3 * 32 * 32


def idx(folder: Path, sha256: Mapping[str, str], **_: Any) -> Found:
    """MNIST, Fashion-MNIST, EMNIST: idx files of bytes, pictures and classes apart."""
    reader = Reader(folder, IDX, sha256)
    parts = []
    for prefix in ("train", "t10k"):
        names = [f"{prefix}-{what}" for what in ("images", "labels")]
        paths = [reader.need(f"{n}-idx{k}-ubyte", f"{n}.idx{k}-ubyte") for n, k in zip(names, (3, 1), strict=True)]
        pixels, labels = (_idx(reader, path) for path in paths)
        if pixels.ndim == 3:
            pixels = pixels[:, None]
        parts.append(_pair(paths[0], pixels, labels))
    return Found(parts[0], parts[1], classes=_numbered(parts), checksums=reader.checksums)


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
    parts = []
    for group in (names, ["test"] if hundred else ["test_batch"]):
        paths = [reader.need(f"{name}.bin", name) for name in group]
        batches = [_batch(reader, path, hundred) for path in paths]
        pixels, labels = (np.concatenate(list(column)) for column in zip(*batches, strict=True))
        parts.append(_pair(paths[0], pixels.reshape(-1, 3, SIDE, SIDE), labels))
    return Found(parts[0], parts[1], classes=_numbered(parts), checksums=reader.checksums)


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
        parts = [_pair(path, _bytes(x), np.asarray(y)) for x, y in content]
        train, validation, test = parts
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold three pairs of pictures and classes ({error})") from error
    return Found(train, test, validation, classes=_numbered(parts), checksums=reader.checksums)


def _bytes(x: Any) -> np.ndarray:
    """Square pictures of one channel as bytes; floats up to 1 are shares of 255 (256 in some files)."""
    flat = np.asarray(x)
    side = round(flat[0].size ** 0.5)
    if flat.dtype.kind == "f" and flat.size and flat.max() <= 1.0:
        flat = np.round(flat * (256.0 if flat.max() < 1.0 else 255.0)).clip(0, 255)
    return flat.astype(np.uint8).reshape(len(flat), 1, side, side)


def folders(folder: Path, sha256: Mapping[str, str], size: int | None = None, channels: int = 3, **_: Any) -> Found:
    """Picture files, one folder a class; the names of the folders are those of the classes."""
    reader = Reader(folder, FOLDERS, sha256)
    splits = {part: folder / part for part in ("train", "validation", "test") if (folder / part).is_dir()}
    roots = splits if "train" in splits else {"train": folder}
    classes = tuple(sorted(p.name for p in roots["train"].iterdir() if p.is_dir()))
    if len(classes) < 2:
        raise ValueError(f"data.path must be a folder with {FOLDERS}; {roots['train']} has {len(classes)} folders")
    if size is None:
        raise ValueError("data.size must say the side in pixels to which pictures are cut and scaled, such as 32")
    found: dict[str, Any] = {part: _folder(reader, root, classes, size, channels) for part, root in roots.items()}
    return Found(found["train"], found.get("test"), found.get("validation"), classes, reader.checksums)


def _folder(reader: Reader, root: Path, classes: tuple[str, ...], size: int, channels: int) -> Pictures:
    from PIL import Image, ImageOps

    pixels, labels = [], []
    strange = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name not in classes)
    if strange:
        raise ValueError(f"{root} has classes that train/ has not: {listed(strange)}")
    for label, name in enumerate(classes):
        for path in sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in ENDINGS):
            try:
                with Image.open(io.BytesIO(reader.content(path))) as opened:
                    picture = ImageOps.fit(opened.convert("L" if channels == 1 else "RGB"), (size, size))
            except OSError as error:
                raise ValueError(f"{path} is damaged or no picture ({error})") from error
            pixels.append(np.asarray(picture).reshape(size, size, channels).transpose(2, 0, 1))
            labels.append(label)
    if not pixels:
        raise ValueError(f"{root} must hold pictures ({', '.join(sorted(ENDINGS))}) in folders of classes, got none")
    return Pictures(np.stack(pixels), np.asarray(labels, np.int64))


def _pair(path: Path, pixels: np.ndarray, labels: np.ndarray) -> Pictures:
    """Pictures and classes of the same number."""
    if pixels.ndim != 4 or labels.ndim != 1 or len(pixels) != len(labels) or not len(labels):
        raise ValueError(f"{path} and its classes must be as many, got shapes {pixels.shape} and {labels.shape}")
    return Pictures(pixels, labels.astype(np.int64))


def _numbered(parts: list[Pictures]) -> tuple[str, ...]:
    """Names of classes that only have numbers."""
    return tuple(str(i) for i in range(max(int(part.labels.max()) for part in parts) + 1))
