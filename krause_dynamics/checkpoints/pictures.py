"""Pictures for vision models: arrays of pixels, or image files through the model's own processor."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import image_files
from krause_dynamics.checkpoints.backbone import evaluating, of_transformers
from krause_dynamics.checkpoints.blocks import device_of, find_blocks
from krause_dynamics.checkpoints.residual_stream import entering_state
from krause_dynamics.errors import UnsupportedModel


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size.

    Attributes:
        pixels: (n, channels, height, width) as the model takes them.
        tokens: How many tokens the model makes of each: patches, and what it puts before them.
        source: What they came as.
        argument: Name of the argument of the model's ``forward``.
        grid: (rows, columns) of patches; empty where they stand on none.
        beside: How many tokens stand before and after them.
    """

    pixels: Tensor
    tokens: int
    source: str
    argument: str = "pixel_values"
    grid: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()
    left_out = 0

    @classmethod
    def of(
        cls,
        inputs: Any,
        model: Any,
        *,
        processor: Any = None,
        folder: str = "",
        most: int | None = None,
        blocks: Sequence[nn.Module] | None = None,
    ) -> Pictures:
        """Pixels from an array, pictures of PIL, files or a folder of files.

        Args:
            inputs: A floating array (n, channels, height, width), as the model's processor makes them; or an image
                file, a folder of them (in the order of their names), a list of files, or of pictures of PIL.
            model: The vision model.
            processor: An image processor of ``transformers``; by default that of the checkpoint's folder.
            folder: Where the checkpoint came from.
            most: Keep only the first ones.
            blocks: The model's blocks, where a search would not find them.

        Raises:
            ValueError: No picture, another shape, NaN, or a size that the model does not take.
            TypeError: Something else than pictures.
        """
        if is_pixels(inputs):
            pixels, source = torch.as_tensor(inputs)[:most], "pixels"
        else:
            opened = image_files.opened(inputs, most)
            pixels, source = image_files.processed(opened, image_files.processor_of(processor, folder)), "pictures"
        if not len(pixels):
            raise ValueError("inputs hold no picture")
        if not bool(torch.isfinite(pixels).all()):
            raise ValueError("inputs: pixels must be finite, received NaN or infinity")
        names = [name for name in inspect.signature(model.forward).parameters if name != "self"]
        argument = "pixel_values" if "pixel_values" in names else names[0]
        first = cls(pixels[:1], 0, source, argument)
        tokens = _tokens(model, first, blocks)
        return cls(pixels, tokens, source, argument, *_grid(model, pixels, tokens))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each picture, shape (n,)."""
        return np.full(len(self), self.tokens)

    def batches(self, size: int) -> Iterator[tuple[list[int], Tensor]]:
        """(indices of the pictures, their pixels)."""
        for start in range(0, len(self), size):
            members = list(range(start, min(start + size, len(self))))
            yield members, self.pixels[members]

    def arguments(self, batch: Tensor, model: Any) -> dict[str, Any]:
        """The pixels, where the model is and in its dtype."""
        weight = next(model.parameters(), batch)
        return {self.argument: batch.to(device=device_of(model), dtype=weight.dtype)}

    def described(self) -> dict[str, np.ndarray]:
        """Where the patches stand; pictures themselves are large, and the caller has them."""
        return {"grid": np.array(self.grid), "beside_grid": np.array(self.beside)} if self.grid else {}


def _grid(model: Any, pixels: Tensor, tokens: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and columns of patches, and the tokens before and after them; both empty where there is no such grid."""
    config: Any = getattr(model, "config", None)
    size = getattr(config, "patch_size", None)
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or hasattr(config, "depths"):  # those with stages merge their patches
        return (), ()
    rows, columns = (int(n) // int(side) for n, side in zip(pixels.shape[-2:], sides, strict=True))
    after = int(getattr(config, "num_detection_tokens", 0) or 0)
    before = tokens - rows * columns - after
    return ((rows, columns), (before, after)) if before >= 0 else ((), ())


def takes_pictures(model: Any, inputs: Any) -> bool:
    """Whether a vision model is shown what may be pictures, or another module pixels."""
    if not of_transformers(model):
        return is_pixels(inputs)
    if getattr(model, "main_input_name", "") != "pixel_values":
        return False
    one = inputs[0] if isinstance(inputs, Sequence) and len(inputs) else inputs
    is_array = isinstance(inputs, np.ndarray | Tensor)
    return isinstance(one, os.PathLike) or type(one).__module__.startswith("PIL.") or (is_array and inputs.ndim >= 3)


def shows_pictures(inputs: Any) -> bool:
    """Whether inputs are pictures whatever the model: pixels, image files or a folder, or pictures of PIL."""
    one = inputs[0] if isinstance(inputs, Sequence) and len(inputs) else inputs
    if isinstance(one, os.PathLike):
        path = Path(one)
        return path.is_dir() or path.suffix.lower() in image_files.ENDINGS
    return is_pixels(inputs) or type(one).__module__.startswith("PIL.")


def is_pixels(inputs: Any) -> bool:
    """Whether inputs are a floating array of four axes."""
    return isinstance(inputs, np.ndarray | Tensor) and inputs.ndim == 4 and "float" in str(inputs.dtype)


class _Enough(Exception):
    """The first block was reached."""


def _tokens(model: Any, pictures: Pictures, blocks: Sequence[nn.Module] | None) -> int:
    """How many tokens enter the first block; twice the same ones."""
    with evaluating(model):
        first, again = (_entering(model, pictures, blocks) for _ in range(2))
    alike = first.is_meta or torch.equal(first, again)  # of an outline there are shapes alone
    if first.shape != again.shape or not alike:
        raise UnsupportedModel(
            f"{type(model).__name__} makes other tokens of the same picture in every pass (a masked autoencoder draws "
            "the order of its patches); load its weights into the model without that, such as ViTModel"
        )
    return int(first[0, ..., 0].numel())  # of a map (n, rows, columns, d) too


def _entering(model: Any, pictures: Pictures, blocks: Sequence[nn.Module] | None) -> Tensor:
    """What enters the first block."""
    seen: list[Tensor] = []

    def reached(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(entering_state(module, args, kwargs).detach())
        raise _Enough

    handle = find_blocks(model, blocks)[0][0].register_forward_pre_hook(reached, with_kwargs=True)
    (name, pixels), *_ = pictures.arguments(pictures.pixels, model).items()
    try:
        with torch.no_grad():
            model(**{name: pixels})
    except _Enough:
        return seen[0]
    except TypeError as error:
        raise UnsupportedModel(
            f"{type(model).__name__} cannot be called with pictures alone ({str(error).splitlines()[0]}); what else it "
            "needs is not known here"
        ) from None
    except (ValueError, RuntimeError) as error:
        size = getattr(getattr(model, "config", None), "image_size", None)
        wanted = "" if size is None else f" (image_size {size} in its configuration)"
        raise ValueError(
            f"inputs: {type(model).__name__} does not take pictures of shape {tuple(pixels.shape[1:])}{wanted}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    finally:
        handle.remove()
    raise ValueError(f"{type(model).__name__} never ran its first block")
