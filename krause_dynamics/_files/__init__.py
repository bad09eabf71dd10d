"""Files of results: one door to write through, never half written, and tried for before anything is computed."""

from krause_dynamics._files.attributes import attributes
from krause_dynamics._files.formats import (
    check_entries,
    read_header,
    read_netcdf,
    read_npz,
    write_netcdf,
    write_npz,
)
from krause_dynamics._files.reading import reading, regular
from krause_dynamics._files.replacing import (
    UnwritableTarget,
    check_target,
    replacing,
    why_not_writable,
    with_ending,
    write_bytes,
)

__all__ = [
    "UnwritableTarget",
    "attributes",
    "check_entries",
    "check_target",
    "read_header",
    "read_netcdf",
    "read_npz",
    "reading",
    "regular",
    "replacing",
    "why_not_writable",
    "with_ending",
    "write_bytes",
    "write_netcdf",
    "write_npz",
]
