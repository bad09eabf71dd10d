"""What stands beside the contrasts: learned bandwidths, the trained pair looked at, the proof of the scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from evidence import logs
from evidence.verdicts.found import Found


def sigmas(one: Found) -> Iterator[str]:
    """Learned bandwidths by layer, mean over seeds; nothing where none is learned."""
    lines = []
    for arm in one.experiment.arms:
        learned = [json.loads(row["sigma"]) for row in one.reported.get(arm.name, ()) if row.get("sigma", "[]") != "[]"]
        if learned:
            mean = [sum(layer) / len(learned) for layer in zip(*learned, strict=True)]
            lines.append(f"- `{arm.name}`: " + ", ".join(f"{sigma:.2f}" for sigma in mean))
    if lines:
        start = one.experiment.tables["model"]["sigma"]
        yield f"Learned sigma, by layer (start {start:.2f}):\n\n" + "\n".join(lines)


def twins(folder: Path) -> Iterator[str]:
    """The trained pair looked at; nothing without its log."""
    rows = logs.read(folder, "twins", "results")
    if not rows:
        return
    yield "## The trained pair looked at"
    yield (
        "`python -m evidence.twins`: digits of the test part, means over blocks and heads; `figures/trained_pair.png`. "
        "The share of the first token is divided by the queries that can see it (reach) or by all (published); order "
        "and clusters are those of the last layer."
    )
    lines = [
        "| model | control | sinks, % | first token, by reach | published | entropy | order | effective clusters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("sink_rate", "importance_first", "published_importance_first", "entropy", "order_parameter")
    for row in rows:
        cells = [f"{row[key]:.4f}" for key in keys] + [f"{row['effective_clusters']:.1f}"]
        lines.append(f"| {row['model']} | {row['control']} | " + " | ".join(cells) + " |")
    yield "\n".join(lines)


def scorers(folder: Path) -> Iterator[str]:
    """The scorers of language against two other computations; nothing without its log."""
    for row in logs.read(folder, "scorers", "results"):
        theirs = "lm_eval: not installed"
        if row.get("lm_eval"):
            theirs = f"lm_eval {row['lm_eval']}: {row['difference_lm_eval']:.2g}"
        yield "## The scorers of language, proved"
        yield (
            f"SmolLM2-135M, {row['requests']} requests of LAMBADA and BLiMP (`python -m evidence.scorers_checked`): "
            "largest difference of a log-probability, in nats, from sums made one by one in float64: "
            f"{row['difference_by_hand']:.2g}; from {theirs}."
        )
