"""What can be read of compiled Python code: its operations and constants, the names it uses, and those it changes."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator

_CHANGING = frozenset(
    ("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove")
    + ("reverse", "setdefault", "sort", "update", "write")
)
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")
_LOADS = (*_GLOBALS, "LOAD_DEREF", "LOAD_ATTR", "LOAD_METHOD", "LOAD_CLASSDEREF")
_STORES = ("STORE_ATTR", "STORE_DEREF", "STORE_GLOBAL", "DELETE_ATTR", "DELETE_DEREF", "DELETE_GLOBAL")


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of all functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def words_of(code: types.CodeType) -> list[str]:
    """Operations, constants and names: what an edit of the body changes, and moving it or a comment does not."""
    words: list[str] = []
    for part in _nested(code):
        words += [part.co_code.hex(), *(_written(c) for c in part.co_consts if not isinstance(c, types.CodeType))]
        words += [*part.co_names, "|", *part.co_varnames, "|", *part.co_freevars]
    return words


def _written(constant: object) -> str:
    """The same in every process: a set of texts is printed in another order in each."""
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


def globals_of(code: types.CodeType) -> list[str]:
    """Names of the module that the code reads, in order, without repetition."""
    steps = (step for part in _nested(code) for step in dis.get_instructions(part))
    return list(dict.fromkeys(str(step.argval) for step in steps if step.opname in _GLOBALS))


def changed_by(code: types.CodeType) -> set[str]:
    """Names and attributes that the code assigns (beside locals), or whose content it changes."""
    return {name for part in _nested(code) for name in _changed(part)}


def _changed(code: types.CodeType) -> Iterator[str]:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "NOP", "PUSH_NULL")]
    loaded: str | None = None
    for place, step in enumerate(steps):
        if step.opname in _STORES:
            yield str(step.argval)
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or _copies_twice(steps, place):
            yield from _container(steps, place)
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in _CHANGING and loaded is not None:
            yield loaded
        loaded = str(step.argval) if step.opname in _LOADS else None


def _copies_twice(steps: list[dis.Instruction], place: int) -> bool:
    """``container[key] += ...`` copies the container and the key before it reads."""
    return len(steps) > place + 1 and all(s.opname == "COPY" and s.arg == 2 for s in steps[place : place + 2])


def _container(steps: list[dis.Instruction], place: int) -> Iterator[str]:
    """The name of the container below the key on the stack: going back until the key's own steps are over."""
    wanted, before = 1, place
    while wanted > 0 and before > 0:
        before -= 1
        wanted -= dis.stack_effect(steps[before].opcode, steps[before].arg, jump=False)
    if wanted == 0 and before > 0 and steps[before - 1].opname in _LOADS:
        yield str(steps[before - 1].argval)
