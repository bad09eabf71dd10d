"""Scores of language models on files of JSON lines: LAMBADA, pairs of sentences (BLiMP), bits a byte of a text.

    python -m evidence.scorers FOLDER --data evaluations --limit 100

FOLDER is a model of transformers with its tokenizer, or adapters of one; ``smollm2`` is what the demo brings. A
continuation is scored by the sum of its tokens' log-probabilities after its context (a sentence without context after
the beginning of text), as in lm_eval, against which `evidence/scorers_checked.py` holds these numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import torch

Tokens = list[int]
AT_ONCE = 8192  # tokens of a batch, padding counted


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of continuations.

    Attributes:
        sums: (requests,) summed over the tokens of each, nats.
        greedy: (requests,) whether every token is the likeliest one.
    """

    sums: np.ndarray
    greedy: np.ndarray


@torch.no_grad()
def continuations(model: Any, requests: Sequence[tuple[Tokens, Tokens]]) -> Scored:
    """Score continuations after contexts, long ones first, padded on the right.

    Args:
        model: A causal language model of transformers or of this package.
        requests: (context, continuation) as tokens; neither is empty.

    Raises:
        ValueError: An empty context or continuation.
    """
    for i, (context, continuation) in enumerate(requests):
        if not context or not continuation:
            raise ValueError(f"request {i} must have a context and a continuation of one token at least")
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0]) - len(requests[i][1]))
    sums, greedy = np.zeros(len(requests)), np.zeros(len(requests), bool)
    model.eval()
    while order:
        longest = len(requests[order[0]][0]) + len(requests[order[0]][1]) - 1
        some, order = order[: max(1, AT_ONCE // longest)], order[max(1, AT_ONCE // longest) :]
        rows = [requests[i][0] + requests[i][1] for i in some]
        ids = torch.tensor([row[:-1] + [0] * (longest + 1 - len(row)) for row in rows], device=model.device)
        logits = model(input_ids=ids).logits.float()  # causal: padding on the right changes nothing before it
        for j, i in enumerate(some):
            n, m = len(rows[j]) - 1, len(requests[i][1])
            shares = logits[j, n - m : n].double().log_softmax(-1)
            target = torch.tensor(requests[i][1], device=shares.device)
            sums[i] = float(shares.gather(1, target[:, None]).sum())
            greedy[i] = bool((shares.argmax(-1) == target).all())
    return Scored(sums, greedy)


def lambada(model: Any, encode: Callable[[str], Tokens], rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Last words of passages: accuracy (greedy decoding gives the whole word) and perplexity a word."""
    requests = []
    for row in rows:
        whole, context = encode(f"{row['context']} {row['continuation']}"), encode(row["context"])
        requests.append((context, whole[len(context) :]))
    found = continuations(model, requests)
    return {"accuracy": float(found.greedy.mean()), "perplexity": exp(-float(found.sums.mean()))}


def pairs(model: Any, encode: Callable[[str], Tokens], begin: int, rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Share of pairs whose good sentence is the likelier one, by paradigm; ``""`` is the mean over paradigms."""
    requests = [([begin], encode(row[kind])) for row in rows for kind in ("good", "bad")]
    sums = continuations(model, requests).sums.reshape(-1, 2)
    right: dict[str, list[bool]] = {}
    for row, (good, bad) in zip(rows, sums, strict=True):
        right.setdefault(row["paradigm"], []).append(bool(good > bad))
    shares = {name: float(np.mean(answers)) for name, answers in right.items()}
    return {"": float(np.mean(list(shares.values()))), **shares}


def bits_per_byte(model: Any, encode: Callable[[str], Tokens], begin: int, text: str, length: int = 512) -> float:
    """Bits a byte of a text in pieces of ``length`` tokens, each after the beginning of text alone."""
    tokens = encode(text)
    requests = [([begin], tokens[i : i + length]) for i in range(0, len(tokens), length)]
    return -float(continuations(model, requests).sums.sum()) / log(2.0) / len(text.encode())


def lines(path: Path, limit: int | None = None, *, each: str = "") -> list[dict[str, str]]:
    """Objects of a file; at most ``limit`` of them, or of each value of a key."""
    rows, counts = [], dict[str, int]()
    with path.open(encoding="utf-8") as opened:
        for line in opened:
            row = json.loads(line)
            group = row[each] if each else ""
            counts[group] = counts.get(group, 0) + 1
            if limit is None or counts[group] <= limit:
                rows.append(row)
    return rows


def loaded(name: str) -> tuple[Any, Callable[[str], Tokens], int]:
    """Model, encoder of texts and token of the beginning."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import krause_dynamics.models  # noqa: F401  (its classes join the Auto classes)
    from krause_dynamics.checkpoints.bundled import smollm2_folder

    folder = smollm2_folder() if name == "smollm2" else Path(name)
    if (folder / "adapter_config.json").exists():
        from peft import PeftConfig, PeftModel

        base = AutoModelForCausalLM.from_pretrained(PeftConfig.from_pretrained(folder).base_model_name_or_path)
        model: Any = PeftModel.from_pretrained(base, folder)  # gives the base the Krause branch that belongs to them
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

    def encode(text: str) -> Tokens:
        return list(tokenizer.encode(text, add_special_tokens=False))

    return model, encode, begin


def main(arguments: list[str] | None = None) -> int:
    """Print the scores of a model."""
    parser = argparse.ArgumentParser(prog="python -m evidence.scorers", description=__doc__)
    parser.add_argument("model", help="folder of a model, or smollm2")
    parser.add_argument("--data", type=Path, required=True, help="folder of lambada_openai.jsonl and blimp.jsonl")
    parser.add_argument("--limit", type=int, help="passages, and pairs of each paradigm times 67")
    parser.add_argument("--text", type=Path, help="a text whose bits a byte are wanted")
    options = parser.parse_args(arguments)
    model, encode, begin = loaded(options.model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    a_paradigm = None if options.limit is None else max(1, options.limit // 67)
    found = lambada(model, encode, lines(options.data / "lambada_openai.jsonl", options.limit))
    sys.stdout.write(f"LAMBADA: accuracy {found['accuracy']:.4f}, perplexity {found['perplexity']:.4f}\n")
    share = pairs(model, encode, begin, lines(options.data / "blimp.jsonl", a_paradigm, each="paradigm"))
    sys.stdout.write(f"BLiMP: {share['']:.4f} over {len(share) - 1} paradigms\n")
    if options.text:
        text = options.text.read_text(encoding="utf-8")
        sys.stdout.write(f"{options.text.name}: {bits_per_byte(model, encode, begin, text):.5f} bits a byte\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
