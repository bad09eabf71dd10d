"""Files of data: found under one of several names, read once, with their checksum, and refused by name."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from numpy import dtype, ndarray
from numpy._core import multiarray

# What a pickle of arrays in builtin containers calls. The old module names are those of files that numpy 1 wrote.
ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): ndarray,
    ("numpy", "dtype"): dtype,
    **{
        (module, name): getattr(multiarray, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    },
    ("_codecs", "encode"): lambda text, encoding="utf-8": str(text).encode(encoding),
}
# Names that files or folders of the parts have, as people write them.
NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


class Reader:
    """Reads files of one folder and notes their checksums.

    Args:
        folder: Where the files are.
        expected: What should be there, in words, for messages.
        sha256: Checksums that files must have, by name; others are not checked.
    """

    def __init__(self, folder: Path, expected: str, sha256: Mapping[str, str] | None = None) -> None:
        self.folder, self.expected, self.sha256 = folder, expected, dict(sha256 or {})
        self.checksums: dict[str, str] = {}
        if not folder.exists():
            raise FileNotFoundError(f"data.path must be a folder with {expected}; {folder} does not exist")

    def find(self, *names: str) -> Path | None:
        """The first of these names that is there, plain or with ``.gz``."""
        for name in names:
            for candidate in (self.folder / name, self.folder / f"{name}.gz"):
                if candidate.is_file():
                    return candidate
        return None

    def need(self, *names: str) -> Path:
        """As `find`.

        Raises:
            FileNotFoundError: None of them is there; says what is.
        """
        path = self.find(*names)
        if path is None:
            there = sorted(p.name for p in self.folder.iterdir())[:8] if self.folder.is_dir() else []
            raise FileNotFoundError(
                f"data.path must be a folder with {self.expected}; {self.folder} has no {' or '.join(names)}"
                f" (it has {', '.join(there) or 'nothing'})"
            )
        return path

    def content(self, path: Path) -> bytes:
        """All bytes of a file, unpacked where its name ends in ``.gz``.

        Raises:
            ValueError: Not the expected checksum, or damaged.
        """
        raw = path.read_bytes()
        name = str(path.relative_to(self.folder))
        self.checksums[name] = digest = hashlib.sha256(raw).hexdigest()
        wanted = self.sha256.get(name, digest)
        if wanted != digest:
            raise ValueError(f"{path} must have the SHA-256 {wanted}, got {digest}: another or a damaged file")
        if path.suffix != ".gz":
            return raw
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or no gzip file ({error})") from error

    def unpickled(self, path: Path) -> Any:
        """Arrays in builtin containers; anything else in a pickle is refused unread.

        Raises:
            ValueError: Damaged, or a pickle that would call something.
        """
        try:
            return _Arrays(io.BytesIO(self.content(path)), encoding="bytes").load()
        except Exception as error:  # a damaged pickle raises whatever its stray codes lead to
            if isinstance(error, ValueError) and str(path) in str(error):
                raise
            raise ValueError(f"{path} must be a pickle of numpy arrays ({error})") from error


class _Arrays(pickle.Unpickler):
    """Admits arrays and builtin containers: no other function is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside")


def files_below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """Files of these endings in a folder and all below it, in order; hidden ones, left by programs, are not meant."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
        and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def misnamed(folder: Path, parts: Iterable[str], others: Iterable[str], ending: str) -> str:
    """That a folder has some parts by name, but not the one to learn from, or something beside them."""
    known = ", ".join(f"{name}{ending}" for names in NAMES.values() for name in names)
    return (
        f"{folder} has {listed(parts)}, so that its parts must be named {known}; it has also "
        f"{listed(others) or 'nothing to learn from'}: rename or remove that, or all names of parts"
    )


def listed(names: Iterable[str]) -> str:
    """Names in words, the first few."""
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
