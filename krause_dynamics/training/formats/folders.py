"""Pictures of one's own: a folder for each class, in parts or not."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics.training.formats.files import NAMES, Reader, files_below, listed, misnamed
from krause_dynamics.training.formats.values import Found, Pictures

FOLDERS = "a folder for each class holding pictures (or train/ and test/ with such folders)"
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def folders(folder: Path, sha256: Mapping[str, str], size: int | None = None, channels: int = 3, **_: Any) -> Found:
    """Picture files, one folder a class; the names of the folders are those of the classes."""
    reader = Reader(folder, FOLDERS, sha256)
    roots = _parts(folder)
    classes = tuple(path.name for path in _within(roots["train"]))
    if len(classes) < 2:
        raise ValueError(f"data.path must be a folder with {FOLDERS}; {roots['train']} has {len(classes)} folders")
    if size is None:
        raise ValueError("data.size must say the side in pixels to which pictures are cut and scaled, such as 32")
    found: dict[str, Any] = {part: _folder(reader, root, classes, size, channels) for part, root in roots.items()}
    if empty := [name for i, name in enumerate(classes) if not (found["train"].labels == i).any()]:
        raise ValueError(
            f"every class must have pictures to learn from; {roots['train']} has none ({', '.join(sorted(ENDINGS))}) "
            f"in {listed(empty)}: fill these folders or remove them"
        )
    return Found(found["train"], found.get("test"), found.get("validation"), classes, reader.checksums)


def _within(root: Path) -> list[Path]:
    """Folders that are meant: those of programs are hidden."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _parts(folder: Path) -> dict[str, Path]:
    """Where each part is; without parts all is for training.

    Raises:
        ValueError: Some parts, but none to learn from, or folders beside them that are none.
    """
    if not folder.is_dir():
        raise ValueError(f"data.path must be a folder with {FOLDERS}; {folder} is a file")
    here = _within(folder)
    parts = {part: path for part, names in NAMES.items() for path in here if path.name in names}
    if not parts:
        return {"train": folder}
    others = [path.name for path in here if path not in parts.values()]
    if "train" not in parts or others:
        raise ValueError(misnamed(folder, [path.name for path in parts.values()], others, "/"))
    return parts


def _folder(reader: Reader, root: Path, classes: tuple[str, ...], size: int, channels: int) -> Pictures:
    strange = [path.name for path in _within(root) if path.name not in classes]
    if strange:
        raise ValueError(f"{root} has classes that train/ has not: {listed(strange)}")
    pixels, labels = [], []
    for label, name in enumerate(classes):
        for path in files_below(root / name, ENDINGS):
            pixels.append(_picture(path, reader.content(path), size, channels))
            labels.append(label)
    if not pixels:
        raise ValueError(f"{root} must hold pictures ({', '.join(sorted(ENDINGS))}) in folders of classes, got none")
    return Pictures(np.stack(pixels), np.asarray(labels, np.int64))


def _picture(path: Path, content: bytes, size: int, channels: int) -> np.ndarray:
    """Bytes (channels, size, size) of a file: upright as its camera says, cut to a square in the middle, scaled."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            upright = _of_bytes(ImageOps.exif_transpose(opened))
            picture = ImageOps.fit(upright.convert("L" if channels == 1 else "RGB"), (size, size))
    except Exception as error:  # a damaged picture raises whatever its stray bytes lead to
        raise ValueError(f"{path} is damaged or no picture ({str(error).partition(' <')[0]})") from error
    return np.asarray(picture).reshape(size, size, channels).transpose(2, 0, 1)


def _of_bytes(picture: Any) -> Any:
    """Grey values of 16 bits as bytes, which the library would cut off at 255."""
    from PIL import Image

    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("grey values must be of 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
