"""Names and signatures that users type do not move unseen."""

from __future__ import annotations

from pathlib import Path

from tests.keywords.public import lines

SNAPSHOT = Path(__file__).with_name("public_names.txt")


def test_public_names_and_signatures_are_those_of_the_snapshot():
    """After a wanted change: ``python -m tests.keywords.public > tests/public_names.txt``, and read the difference."""
    before, now = SNAPSHOT.read_text().splitlines(), lines()
    assert not (gone := sorted(set(before) - set(now))), f"gone or changed: {gone}"
    assert not (new := sorted(set(now) - set(before))), f"new; add to the snapshot: {new}"
