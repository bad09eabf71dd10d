"""Files that are read: whatever is wrong with one is one class of error with its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def regular(path: str | os.PathLike[str]) -> Path:
    """The path of a regular file: opening a pipe or a device would wait for ever.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: A folder, pipe or device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    return path


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path; what goes wrong inside is a ``ValueError``, whatever a damaged file makes the libraries raise.

    Raises:
        ValueError: The file is damaged, missing or of another kind.
    """
    try:
        yield regular(path)
    except Exception as error:  # ValueError, KeyError, TypeError, RecursionError, MemoryError, ...: 26 of 332 damaged
        words = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged or of another kind ({words[:300]})") from error
