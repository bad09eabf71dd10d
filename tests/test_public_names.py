"""Names and signatures that users type do not move unseen."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import krause_dynamics as kd
from tests.keywords.public import callables, lines, signature

SNAPSHOT = Path(__file__).with_name("public_names.txt")


def test_public_names_and_signatures_are_those_of_the_snapshot():
    """After a wanted change: ``python -m tests.keywords.public > tests/public_names.txt``, and read the difference."""
    before, now = SNAPSHOT.read_text().splitlines(), lines()
    assert not (gone := sorted(set(before) - set(now))), f"gone or changed: {gone}"
    assert not (new := sorted(set(now) - set(before))), f"new; add to the snapshot: {new}"


def test_every_parameter_is_documented():
    """By name, in the docstring of the function, or of the class or one that it is made from."""
    silent = {}
    for path, thing in callables().items():
        kinds = thing.__mro__ if inspect.isclass(thing) else (thing,)
        said = [
            text
            for kind in kinds
            for text in (kind.__doc__, getattr(vars(kind).get("__init__"), "__doc__", ""))
            if text
        ]
        words = "\n".join(said)
        names = [
            p.name for p in signature(thing).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if missing := [name for name in names if not re.search(rf"\b{name}\b", words)]:
            silent[path] = missing
    assert not silent, f"not in the docstring: {silent}"


def test_type_checkers_see_the_names_that_are_there():
    """`__init__.pyi` names each name of the package once, as the very thing that the package gives."""
    stub = ast.parse(Path(kd.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    seen = {"theory_table": kd.theory_table}
    for line in (line for line in stub.body if isinstance(line, ast.ImportFrom) and line.module != "types"):
        for alias in line.names:
            assert alias.asname == alias.name, "without `as` a type checker hides it"
            seen[alias.name] = getattr(
                importlib.import_module(line.module), alias.name, None
            ) or importlib.import_module(f"{line.module}.{alias.name}")
    assert set(seen) == set(dir(kd))
    assert [name for name, thing in seen.items() if thing is not getattr(kd, name)] == []
