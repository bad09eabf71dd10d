"""What stands beside the contrasts: learned bandwidths, the trained pair looked at, the proof of the scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

from evidence import logs
from evidence.experiments import Run, configuration
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
        last = Run(one.experiment.name, one.experiment.arms[-1].name, 0)
        start = configuration(last, 0.0, "")["model"]["sigma"]
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


COLUMNS = {
    "lambada_perplexity": "LAMBADA perplexity", "lambada_accuracy": "LAMBADA accuracy", "blimp": "BLiMP",
    "sink_rate_softmax": "sinks, softmax", "first_softmax": "first token, softmax",
    "sink_rate_krause": "sinks, Krause", "first_krause": "first token, Krause, by reach",
    "published_krause": "published", "gate_krause": "gate to Krause",
}  # fmt: skip


def language(one: Found) -> Iterator[str]:
    """What trained language models answered, mean and standard deviation over seeds; nothing where none was asked."""
    rows = [row for row in one.rows if "lambada_perplexity" in row]
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    if not rows:
        return
    lines = ["| arm | seeds | " + " | ".join(COLUMNS[name] for name in names) + " |", "| --- " * (2 + len(names)) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        cells = []
        for name in names:
            values = [row[name] for row in own if name in row]
            spread = f" +- {stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.4g}{spread}" if values else "-")
        lines.append(f"| `{arm}` | {len(own)} | " + " | ".join(cells) + " |")
    yield (
        "Asked afterwards (`base`: before it learned); +- is the standard deviation over seeds. A sink is a head whose "
        "first token gets over 0.3 of the weight of the queries that can hear it; *published* divides by all queries."
    )
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
