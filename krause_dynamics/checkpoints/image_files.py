"""Image files and pictures of PIL as the pixels that a model's own processor makes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def opened(inputs: Any, most: int | None) -> list[Any]:
    """Pictures of PIL."""
    from PIL import Image

    items = list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, str) else [inputs]
    found: list[Any] = []
    for item in items:
        if isinstance(item, Image.Image):
            found.append(item.convert("RGB"))
        elif isinstance(item, os.PathLike):
            files = _files(Path(item))
            for file in files[: None if most is None else most - len(found)]:
                try:
                    with Image.open(file) as picture:
                        found.append(picture.convert("RGB"))
                except OSError as error:
                    raise ValueError(f"inputs: {file} is damaged or no picture ({error}); leave it out") from None
        else:
            raise TypeError(
                "inputs of a vision model must be a floating array (n, channels, height, width), pathlib.Path of image "
                f"files or of a folder of them, or pictures of PIL; received {_kind(item)}"
            )
    return found[:most]


def _kind(item: Any) -> str:
    shape = getattr(item, "shape", None)
    return type(item).__name__ if shape is None else f"{item.dtype} of shape {tuple(shape)}"


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
        if not files:
            raise ValueError(f"inputs: no picture in {str(path)!r}; files must end in {', '.join(ENDINGS)}")
        return files
    if not path.is_file():
        raise ValueError(f"inputs: no such file {str(path)!r}; pass an image file or a folder of them")
    return [path]


def processor_of(processor: Any, folder: str) -> Any:
    """The processor that is given, or that of a checkpoint's folder.

    Raises:
        ValueError: There is neither.
    """
    if processor is not None:
        return processor
    from transformers import AutoImageProcessor

    # Of a model with texts and pictures both have their settings in one file.
    if not any(Path(folder, name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise ValueError(
            "inputs: image files need the model's processor and it came without one; pass tokenizer=processor, or "
            "pixels (n, channels, height, width) as the processor makes them"
        )
    return AutoImageProcessor.from_pretrained(folder)


def processed(pictures: list[Any], processor: Any) -> Tensor:
    """Pixels (n, channels, height, width) of pictures.

    Raises:
        ValueError: The processor makes something else of them.
    """
    if not pictures:
        return torch.empty(0)
    pixels: Tensor = processor(images=pictures, return_tensors="pt")["pixel_values"]
    if pixels.ndim != 4:
        raise ValueError(
            f"inputs: the processor makes {tuple(pixels.shape)} of {len(pictures)} pictures, not (n, channels, height, "
            "width); pass pixels"
        )
    return pixels
