"""``python -m evidence.trained_models``: see the package."""

from __future__ import annotations

import sys

from evidence.trained_models import analyses, numbers


def main(names: list[str]) -> None:
    """Analyse the models that are named; print the page of all that are stored."""
    for name in names:
        sys.stderr.write(f"wrote {analyses.store(name)}\n")
    if not names:
        numbers.PAGE.write_text(numbers.page(), encoding="utf-8")
        sys.stderr.write(f"wrote {numbers.PAGE}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
