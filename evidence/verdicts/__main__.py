"""Regenerate the verdicts from the kept logs: ``python -m evidence.verdicts``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evidence import logs
from evidence.verdicts import figure, tables, words
from evidence.verdicts.found import all_found
from krause_dynamics import plots
from krause_dynamics._files import write_bytes

HERE = Path(__file__).parent.parent
PAGES = {"krause_paper.md": tables.page, "README.md": words.page}


def main(arguments: list[str] | None = None) -> int:
    """Write both pages and the figure."""
    parser = argparse.ArgumentParser(prog="python -m evidence.verdicts", description=__doc__)
    parser.add_argument("--logs", type=Path, default=logs.FOLDER, help="folder of the logs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pages")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "figures" / "krause_paper.png")
    options = parser.parse_args(arguments)
    found = all_found(options.logs)
    for name, page in PAGES.items():
        write_bytes(options.out / name, page(found, options.logs).encode())
    drawn = figure.draw(found)
    if drawn is not None:
        counts = {name: one.counts[0] for name, one in found.items()}
        plots.save_figure(drawn, options.figure, {"command": "make evidence", "runs": counts})
    for name, one in found.items():
        kept, planned = one.counts
        sys.stdout.write(f"{name}: {kept} of {planned} runs\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
