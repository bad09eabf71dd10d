"""Which tests a fault is run against: those that reach its line, the quick ones of many files first."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.mutation.coverage import ROOT
from tests.mutation.mutants import Mutant

MOST_TESTS, MOST_SECONDS = 300, 90.0
EVERYWHERE = ("tests/test_public_names.py",)  # signatures of the whole package, whose lines run at import alone
# Tests whose lines run in a process of their own, by what the path of the fault holds.
ELSEWHERE = {
    "forms/attention/kernel": ("tests/test_fused_kernels.py",),
    "models/auto": ("tests/test_models_decoder.py",),
}
FEW = 10  # fewer tests than this are joined by others of the file: lines that run at import belong to no test


class Map:
    """Tests by line, from the parts that `coverage` wrote, kept in one file."""

    def __init__(self, path: Path) -> None:
        with gzip.open(path, "rt") as stream:
            self.tests: dict[str, Any] = json.load(stream)
        self._by_line: dict[tuple[str, int], list[str]] = defaultdict(list)
        self._by_file: dict[str, list[str]] = defaultdict(list)
        for name, about in self.tests.items():
            for file, lines in about["lines"].items():
                self._by_file[file].append(name)
                for line in lines:
                    self._by_line[file, line].append(name)

    def choose(self, mutant: Mutant) -> list[str]:
        """Test ids, in the order in which they are worth running."""
        reached = set(self._by_line.get((mutant.path, mutant.line), []))
        if len(reached) < FEW:
            reached |= set(self._by_file.get(mutant.path, []))
        reached |= self._naming(mutant)
        queues: dict[str, list[str]] = defaultdict(list)
        for name in sorted(reached, key=lambda name: (self.tests[name]["seconds"], name)):
            queues[name.split("::")[0]].append(name)
        # The quickest of every file, then the second quickest of every file, ...
        ranked = sorted(
            (rank, self.tests[name]["seconds"], name) for q in queues.values() for rank, name in enumerate(q)
        )
        chosen, seconds = [], 0.0
        for _, cost, name in ranked[:MOST_TESTS]:
            if chosen and seconds + cost > MOST_SECONDS:
                continue
            chosen.append(name)
            seconds += cost
        unseen = self._unseen(mutant.path) if reached else []
        return chosen + [name for name in unseen if name not in chosen]

    def _naming(self, mutant: Mutant) -> set[str]:
        """Tests of files that name the constant of the line: it is set at import, and read anywhere."""
        source = ROOT / mutant.path
        lines = source.read_text(encoding="utf-8").splitlines() if source.exists() else []
        names = re.findall(r"^[A-Z][A-Z_]+\b", lines[mutant.line - 1]) if mutant.line <= len(lines) else []
        if not names:
            return set()
        files = {name.split("::")[0] for name in self.tests}
        naming = {file for file in files if re.search(rf"\b{names[0]}\b", (ROOT / file).read_text(encoding="utf-8"))}
        return {name for name in self.tests if name.split("::")[0] in naming}

    def _unseen(self, path: str) -> list[str]:
        """Tests that may notice a fault in a file and that no tracer saw there."""
        files = {*EVERYWHERE, *(file for part, files in ELSEWHERE.items() if part in path for file in files)}
        return sorted(name for name in self.tests if name.split("::")[0] in files)

    def seconds(self, names: list[str]) -> float:
        """How long these tests took when the map was made."""
        return float(sum(self.tests[name]["seconds"] for name in names))


def join(folder: Path, path: Path) -> int:
    """Write the parts in a folder as one map; the number of tests in it."""
    tests: dict[str, Any] = {}
    for part in sorted(folder.glob("*.json.gz")):
        with gzip.open(part, "rt") as stream:
            tests |= json.load(stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as stream:
        json.dump(tests, stream)
    return len(tests)
