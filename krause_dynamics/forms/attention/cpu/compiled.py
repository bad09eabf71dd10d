"""How functions of this folder are compiled by numba.

Small functions are inlined into the entry points, which alone are cached on disk. numba would notice changes of an
entry point's own file only; here the newest file of the folder counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.extending import intrinsic as _intrinsic

from krause_dynamics._compiled import cached

intrinsic: Any = _intrinsic  # its calls lose the typing context, which mypy would ask for
plain: Any = njit(nogil=True, error_model="numpy")
# Reassociation lets sums vectorise; "contract" allows fused multiply-adds. NaN and infinities keep their meaning.
sums: Any = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


class _FolderCache(FunctionCache):
    """Machine code on disk, valid as long as no file of this folder changes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
        stamp = max(s.st_mtime for s in stats), sum(s.st_size for s in stats)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamp)


def entry(function: Callable[..., Any]) -> Any:
    """A kernel called from Python: releases the interpreter lock and is cached on disk."""
    kernel = plain(function)

    def enable() -> None:
        kernel._cache = _FolderCache(function)

    cached(enable)
    return kernel


@intrinsic
def larger(context: Any, a: Any, b: Any) -> Any:
    """max(a, b) of numbers (no NaN); unlike a comparison in the source, its reductions vectorise."""
    return a(a, a), _two("llvm.maximum")


@intrinsic
def smaller(context: Any, a: Any, b: Any) -> Any:
    """min(a, b) of numbers (no NaN)."""
    return a(a, a), _two("llvm.minimum")


def _two(name: str) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = builder.module.declare_intrinsic(name, [arguments[0].type], _signature(arguments))
        return builder.call(function, arguments, fastmath=("nnan", "nsz"))

    return generate


def _signature(arguments: Any) -> Any:
    kind = arguments[0].type
    return ir.FunctionType(kind, [kind, kind])


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """2^exponent as float32, written into the bits; -126 <= exponent <= 127, an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, number = (context.get_value_type(kind) for kind in (types.int32, types.float32))
        biased = builder.add(arguments[0], integer(127))
        return builder.bitcast(builder.shl(biased, integer(23)), number)

    return types.float32(types.int32), generate


@intrinsic
def ordinal(context: Any, x: Any) -> Any:
    """An int64 that sorts as the floats do: neighbours differ by one (and the two zeros)."""
    size = 32 if x == types.float32 else 64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int32 if size == 32 else types.int64)
        return builder.sext(_mirror(builder, builder.bitcast(arguments[0], integer), size), _wide(context))

    return types.int64(x), generate


@intrinsic
def at_ordinal(context: Any, place: Any, like: Any) -> Any:
    """The float of the type of ``like`` with this ordinal: the inverse of `ordinal`."""
    size = 32 if like == types.float32 else 64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = context.get_value_type(types.int32 if size == 32 else types.int64)
        bits = _mirror(builder, builder.trunc(arguments[0], integer), size)
        return builder.bitcast(bits, context.get_value_type(like))

    return like(types.int64, like), generate


def _wide(context: Any) -> Any:
    return context.get_value_type(types.int64)


def _mirror(builder: Any, bits: Any, size: int) -> Any:
    """Bits of negative floats turned round, so that they rise with the float; its own inverse."""
    sign = builder.ashr(bits, bits.type(size - 1))
    return builder.xor(bits, builder.and_(sign, bits.type(2 ** (size - 1) - 1)))
