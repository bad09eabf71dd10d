"""What stands beside the contrasts: learned bandwidths, the trained pair looked at, the proof of the scorers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

from evidence import logs
from evidence.experiments import configuration
from evidence.plan import Run
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


LOOKED = {
    "sink_rate": "sinks, %", "importance_first": "first token, by reach", "published_importance_first": "published",
    "entropy": "entropy", "keys_heard": "keys heard", "keys_effective": "keys that share the weight",
    "head_diversity": "head diversity", "order_parameter": "order", "effective_clusters": "effective clusters",
    "groups": "groups (eigenvalue 1)", "separated": "maps of two groups or more, %", "as_logged": "answers as logged",
}  # fmt: skip
TOLD = {
    "twins": (
        "The trained pair looked at",
        "`python -m evidence.twins`: digits of the test part, means over blocks and heads; `figures/trained_pair.png`.",
    ),
    "vits": (
        "The trained vision transformers looked at",
        "`python -m evidence.vits WEIGHTS --data DATA`: Fashion-MNIST, seed 0, pictures of the test part; the first "
        "token is CLS, keys are those of a patch. Figures: `figures/trained_vits.png`, `trained_vits_heads.png` (over "
        "blocks), `trained_vits_attention.png` (what CLS looks at).",
    ),
}


def looked_at(folder: Path) -> Iterator[str]:
    """Trained models with their controls; nothing without their logs."""
    for log, (title, told) in TOLD.items():
        rows = logs.read(folder, log, "results")
        if not rows:
            continue
        yield f"## {title}"
        yield (
            f"{told} The share of the first token is divided by the queries that can see it (reach) or by all "
            "(published); a sink is a head where it is over 0.3; order and clusters are those of the last layer."
        )
        names = [name for name in LOOKED if any(name in row for row in rows)]
        head = ["model", "control", *(LOOKED[name] for name in names)]
        cells = [[row["model"], row["control"], *(digits(row.get(name)) for name in names)] for row in rows]
        yield table(head, cells)


def digits(x: float | None) -> str:
    """Four digits."""
    return "-" if x is None else f"{x:.4g}"


def table(head: list[str], cells: list[list[str]]) -> str:
    """A table of markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells))


COLUMNS = {
    "lambada_perplexity": "LAMBADA perplexity", "lambada_accuracy": "LAMBADA accuracy", "blimp": "BLiMP",
    "sink_rate_softmax": "sinks, softmax", "first_softmax": "first token, softmax",
    "sink_rate_krause": "sinks, Krause", "first_krause": "first token, Krause, by reach",
    "published_krause": "published", "gate_krause": "gate to Krause",
}  # fmt: skip


def language(one: Found) -> Iterator[str]:
    """What trained language models answered, mean and standard deviation over seeds; nothing where none was asked."""
    rows = [row for row in one.rows if "lambada_perplexity" in row and row["part"] != "tuning"]
    if not rows:
        return
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    cells = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        values = [[row[name] for row in own if name in row] for name in names]
        spreads = [f" +- {stdev(x):.2g}" if len(x) > 1 else "" for x in values]
        means = [digits(mean(x) if x else None) for x in values]
        cells.append([f"`{arm}`", str(len(own)), *(a + b for a, b in zip(means, spreads, strict=True))])
    yield (
        "Asked afterwards (`base`: before it learned); +- is the standard deviation over seeds. A sink is a head whose "
        "first token gets over 0.3 of the weight of the queries that can hear it; *published* divides by all queries."
    )
    yield table(["arm", "seeds", *(COLUMNS[name] for name in names)], cells)


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
