"""The scorers on SmolLM2-135M against sums made one by one in float64, and against lm_eval where it is installed.

``python -m evidence.scorers_checked --data evaluations --limit 40``; a row of ``evidence/logs/scorers.results.csv``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evidence import logs, scorers


def requests_of(encode: Any, begin: int, data: Path, limit: int) -> tuple[list[tuple[str, str]], list[Any]]:
    """Texts and tokens of last words of passages, then of sentences, a good and a bad one of each paradigm."""
    passages = scorers.lines(data / "lambada_openai.jsonl", limit)
    sentences = scorers.lines(data / "blimp.jsonl", 1, each="paradigm")
    texts = [(row["context"], f" {row['continuation']}") for row in passages]
    texts += [("", row[kind]) for row in sentences for kind in ("good", "bad")]
    return texts, [(encode(context) or [begin], encode(continuation)) for context, continuation in texts]


@torch.no_grad()
def by_hand(model: Any, context: list[int], continuation: list[int]) -> float:
    """Sum of log-probabilities: one sequence a pass, no padding, logits in float64, token by token."""
    logits = model(input_ids=torch.tensor([context + continuation])).logits[0].double()
    places = range(len(context) - 1, len(context) + len(continuation) - 1)
    return sum(
        float(logits[i, token] - torch.logsumexp(logits[i], 0)) for i, token in zip(places, continuation, strict=True)
    )


def by_lm_eval(texts: list[tuple[str, str]], model: Any, folder: Path) -> tuple[str, np.ndarray] | None:
    """Sums of lm_eval's HFLM for the same texts and the same weights; ``None`` where it is not installed."""
    try:
        import lm_eval
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        sys.stderr.write(f"lm_eval is not there: {error}\n")
        return None
    from transformers import AutoTokenizer

    theirs = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=4, device="cpu")
    instances = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(texts)]
    found = theirs.loglikelihood(instances)
    return getattr(lm_eval, "__version__", "?"), np.array([total for total, _ in found])


def main(arguments: list[str] | None = None) -> int:
    """Compare, print, and keep a row."""
    parser = argparse.ArgumentParser(prog="python -m evidence.scorers_checked", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=40, help="passages")
    options = parser.parse_args(arguments)
    from krause_dynamics.checkpoints.bundled import smollm2_folder

    model, encode, begin = scorers.loaded("smollm2")
    texts, requests = requests_of(encode, begin, options.data, options.limit)
    ours = scorers.continuations(model, requests).sums
    hand = np.array([by_hand(model, *request) for request in requests])
    theirs = by_lm_eval(texts, model, smollm2_folder())
    row = {
        "run": f"smollm2-135m-{options.limit}", "requests": len(requests),
        "perplexity": float(np.exp(-ours[: options.limit].mean())),
        "difference_by_hand": float(np.abs(ours - hand).max()),
        "lm_eval": theirs[0] if theirs else "",
        "difference_lm_eval": float(np.abs(ours - theirs[1]).max()) if theirs else "",
    }  # fmt: skip
    kept = [old for old in logs.read(logs.FOLDER, "scorers", "results") if old["run"] != row["run"]]
    logs.write(logs.FOLDER, "scorers", "results", [*kept, row])
    sys.stdout.write(f"{row}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
