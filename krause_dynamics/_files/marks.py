"""A mark behind the last byte of a netCDF file: its length and checksum, compared before any library sees the file.

The format checks little of itself, and a changed byte can make its library read for ever. HDF5 keeps the address of
its end and leaves what lies behind it alone, so that a marked file is netCDF to every reader; files of others, and of
earlier releases, have no mark and are read as they are.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

TAG = b"krause_dynamics\0"
MARK = struct.Struct(f"<{len(TAG)}sQI")
PART = 1 << 22  # bytes read at a time
SIGNATURE = b"\x89HDF\r\n\x1a\n"
ENDS = {0: 40, 1: 44, 2: 28, 3: 28}  # where a superblock of that version keeps the address of the end
HEAD = 52  # bytes that hold it


def mark(content: bytes | memoryview) -> bytes:
    """What is written behind the content."""
    return MARK.pack(TAG, len(content), zlib.crc32(content))


def check_mark(path: Path) -> None:
    """Compare a file with its mark, where it has one.

    Raises:
        ValueError: The content is not what was written, or something else than a mark lies behind its end.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - MARK.size))
        tail = stream.read()
        if not tail.startswith(TAG) or len(tail) != MARK.size:
            if size > _end(head, size):
                raise ValueError("what lies behind its end is no mark of this package")
            return
        _, length, checksum = MARK.unpack(tail)
        stream.seek(0)
        found, left = 0, size - MARK.size
        while left and (part := stream.read(min(PART, left))):
            found, left = zlib.crc32(part, found), left - len(part)
    if (size - MARK.size, found) != (length, checksum):
        raise ValueError(f"its {size - MARK.size} bytes are not the {length} that were written")


def _end(head: bytes, size: int) -> int:
    """Where the content ends by its own word; the size where there is no such word."""
    place = ENDS.get(head[8]) if len(head) == HEAD and head.startswith(SIGNATURE) else None
    return size if place is None else int.from_bytes(head[place : place + 8], "little")
