"""Pictures a second when sampling, as the benchmark of generation found them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "benchmarks" / "results" / "generation_h200.md"
COLUMNS = ("shape", "KARM, pictures a second", "softmax")


@dataclass(frozen=True)
class Sampled:
    """Two models of a shape, each with captured steps at its own best batch, on one card.

    Attributes:
        softmax: Pictures a second of softmax attention.
        krause: Of the full rule.
    """

    softmax: float
    krause: float

    @property
    def words(self) -> str:
        """Both and their ratio, for the table of claims."""
        return (
            f"{self.softmax:g} -> {self.krause:g} (H200, both with captured steps at their best batch): "
            f"{self.krause / self.softmax:.2f} times; `benchmarks/results/{PAGE.name}`"
        )

    @property
    def verdict(self) -> str:
        """Whether the rule samples faster."""
        return "reproduced" if self.krause > self.softmax else "differs"


def sampled(shape: str, page: Path = PAGE) -> Sampled | None:
    """Read a row of the page's table; ``None`` without the page or the row.

    Args:
        shape: First cell of the row, ``mnist`` or ``cifar``.
        page: Markdown of the benchmark.
    """
    if not page.exists():
        return None
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    heads = [line for line in lines if set(COLUMNS) <= set(line)]
    rows = [line for line in lines if line[0] == shape]
    if not heads or not rows:
        return None
    row = dict(zip(heads[0], rows[0], strict=True))
    return Sampled(float(row["softmax"]), float(row["KARM, pictures a second"]))
