"""What decides the numbers of a run, as short marks by name: code, constants, closures, defaults, whole arrays.

A file remembers these marks, so that a run of other functions, values or data is never taken for the one in it, and the
message can name what differs. What the code itself changes (a counter, a list that it appends to) is memory, not input,
and left out. Code of installed packages is known by its name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from krause_dynamics._array import is_torch, to_numpy
from krause_dynamics._value import Value, fields_of
from krause_dynamics.runs.code import changed_by, globals_of, words_of

Marks = dict[str, str]
DEPTH = 40  # of values within values; deeper ones are refused
_INSTALLED = tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")})
_STARTING = ("__init__", "__post_init__", "__new__", "restore", "__setstate__")  # give attributes, change none


def fingerprint(x: Any) -> str | None:
    """A short hash of an array's bytes and shape, so that a file can tell whether it started from the same state."""
    if x is None:
        return None
    host = np.ascontiguousarray(to_numpy(x))
    content = repr([marks("", item) for item in host.ravel()]).encode() if host.dtype.hasobject else host.tobytes()
    return hashlib.sha256(content + repr((host.shape, host.dtype.str)).encode()).hexdigest()[:16]


def functions_in(**named: Any) -> Marks:
    """Marks of all functions and foreign objects inside values; numbers, texts and arrays beside them have no part.

    Raises:
        TypeError: Something whose content cannot be read, with the ways out.
    """
    walk = Walk()
    for given, x in named.items():
        for name, part in _functions(given, x, 0):
            walk.mark(name, part)
    return walk.found


def marks(name: str, x: Any) -> Marks:
    """Marks of one thing and of all that it holds, by dotted name.

    Raises:
        TypeError: Something whose content cannot be read, with the ways out.
    """
    walk = Walk()
    walk.mark(name, x)
    return walk.found


def differences(ours: Marks, theirs: Marks) -> list[str]:
    """Names whose marks differ, sorted."""
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def _functions(name: str, x: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """What values hold that their dictionaries do not describe."""
    inner: dict[str, Any] = {}
    if isinstance(x, Value):
        inner = {f".{field.name}": getattr(x, field.name) for field in fields_of(type(x))}
        if not _is_installed(type(x)):
            yield f"{name} (class)", type(x)
    elif isinstance(x, Mapping):
        inner = {f"[{key!r}]": item for key, item in x.items()}
    elif isinstance(x, tuple | list):
        inner = {f"[{place}]": item for place, item in enumerate(x)}
    elif not (_is_plain(x) or isinstance(x, np.ndarray) or is_torch(x)):
        yield name, x
    if depth < DEPTH:
        for key, part in inner.items():
            yield from _functions(f"{name}{key}", part, depth + 1)


class Walk:
    """Goes through things and what they hold; code is looked at once, wherever it is met first.

    Attributes:
        found: Marks so far.
    """

    def __init__(self) -> None:
        self.found: Marks = {}
        self._within: set[int] = set()
        self._code: dict[int, Any] = {}  # kept, so that no other object gets the same id

    def mark(self, name: str, x: Any, depth: int = 0) -> None:
        """Mark one thing."""
        if _is_plain(x):
            self.found[name] = _short(type(x).__name__, repr(x))
        elif isinstance(x, np.ndarray) or is_torch(x):
            self.found[name] = str(fingerprint(x))
        elif depth > DEPTH:
            raise TypeError(_refusal(name, x))
        elif id(x) not in self._within and id(x) not in self._code:
            if isinstance(x, types.FunctionType | type):
                self._code[id(x)] = x
            self._within.add(id(x))
            for key, part in self._parts(name, x).items():
                self.mark(f"{name}{key}", part, depth + 1)
            self._within.remove(id(x))

    def _parts(self, name: str, x: Any) -> dict[str, Any]:
        """What a thing consists of, by what is added to its name; what it is itself is marked."""
        if isinstance(x, functools.partial):
            return {".func": x.func, ".args": x.args} | {f".{key}": value for key, value in x.keywords.items()}
        if isinstance(x, types.MethodType):
            return {"": x.__func__, " (object)": x.__self__}
        if isinstance(x, Mapping):
            self.found[name] = _short("mapping", *(repr(key) for key in x if _is_plain(key)), str(len(x)))
            return {f"[{key!r}]" if _is_plain(key) else f"[{n}]": v for n, (key, v) in enumerate(x.items())}
        if isinstance(x, tuple | list):
            plain = all(_is_plain(item) for item in x)
            self.found[name] = _short(type(x).__name__, str(len(x)), repr(x) if plain else "")
            return {} if plain else {f"[{place}]": item for place, item in enumerate(x)}
        if isinstance(x, set | frozenset):
            self.found[name] = _short("set", *sorted(map(repr, x)))
            return {}
        named = isinstance(x, types.FunctionType | type) and _is_installed(x)
        if named or isinstance(x, types.ModuleType | np.ufunc):
            self.found[name] = _short("library", getattr(x, "__module__", ""), getattr(x, "__qualname__", x.__name__))
            return {}
        if isinstance(x, types.FunctionType):
            return self._function(name, x)
        return self._class(name, x) if isinstance(x, type) else self._object(name, x)

    def _function(self, name: str, x: types.FunctionType) -> dict[str, Any]:
        self.found[f"{name} (code)"] = _short(*words_of(x.__code__))
        memory = changed_by(x.__code__)
        parts: dict[str, Any] = {" (defaults)": x.__defaults__} if x.__defaults__ else {}
        parts |= {f" (default of {key})": value for key, value in (x.__kwdefaults__ or {}).items()}
        for cell, free in zip(x.__closure__ or (), x.__code__.co_freevars, strict=True):
            if free not in memory:
                parts[f" (closure: {free})"] = _content(cell)
        used = [key for key in globals_of(x.__code__) if key in x.__globals__ and key not in memory]
        return parts | {f" (global: {key})": x.__globals__[key] for key in used}

    def _class(self, name: str, x: type) -> dict[str, Any]:
        self.found[name] = _short("class", x.__qualname__)
        own = [base for base in x.__mro__ if not _is_installed(base)]
        memory = _memory(x)
        return {
            f".{key}": f
            for base in reversed(own)
            for key, f in vars(base).items()
            if key not in memory and (isinstance(f, types.FunctionType) or not key.startswith(("__", "_abc_")))
        }

    def _object(self, name: str, x: Any) -> dict[str, Any]:
        """An object is its class and what a pickle would hold of it, less the attributes that its methods change."""
        if isinstance(x, staticmethod | classmethod):
            return {"": x.__func__}
        if isinstance(x, property):
            return {f".{key}": f for key in ("fget", "fset") if (f := getattr(x, key)) is not None}
        for key in ("__wrapped__", "py_func"):  # caches and compiled functions
            if (wrapped := getattr(x, key, None)) is not None:
                return {"": wrapped}
        if isinstance(told := getattr(x, "fingerprint", None), str | bytes):
            return {".fingerprint": told}
        try:
            reduced = x.__reduce_ex__(4)
        except Exception as error:
            raise TypeError(_refusal(name, x)) from error
        if isinstance(reduced, str):
            self.found[name] = _short("library", getattr(x, "__module__", None) or "", reduced)
            return {}
        build, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        state = state if isinstance(state, tuple) else (state,)
        memory = _memory(type(x))
        held = {f".{k}": v for part in state if isinstance(part, dict) for k, v in part.items() if k not in memory}
        rest = {
            f" (state {n})": part for n, part in enumerate(state) if part is not None and not isinstance(part, dict)
        }
        rest |= {} if items is None else {" (items)": list(items)}
        rest |= {} if pairs is None else {" (pairs)": list(pairs)}
        return {" (class)": type(x), " (made by)": build, " (made from)": tuple(arguments)} | held | rest


def _is_plain(x: Any) -> bool:
    return x is None or isinstance(
        x, bool | int | float | complex | str | bytes | np.generic | np.dtype | range | slice | os.PathLike
    )


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _memory(kind: type) -> set[str]:
    """Attributes that the methods of a class change; those of installed classes are left out of nothing."""
    own = [f for base in kind.__mro__ if not _is_installed(base) for f in vars(base).values()]
    methods = [f for f in own if isinstance(f, types.FunctionType) and f.__name__ not in _STARTING]
    return {name for method in methods for name in changed_by(method.__code__)}


@functools.cache
def _is_installed_module(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "krause_dynamics" or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and os.path.realpath(file).startswith(_INSTALLED)


def _is_installed(x: Any) -> bool:
    """Whether code belongs to Python, an installed package or this one: its name says what it is."""
    return _is_installed_module(getattr(x, "__module__", None) or "")


def _short(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _refusal(name: str, x: Any) -> str:
    return (
        f"{name} holds a {type(x).__name__}, whose content cannot be read, so that no file could tell this run from "
        "another; give it an attribute fingerprint (a text that says what it is), or leave the file out"
    )
