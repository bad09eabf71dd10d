"""Names and signatures that users type do not move unseen."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

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
