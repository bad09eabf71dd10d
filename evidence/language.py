"""What a trained language model is asked after its run: last words (LAMBADA), pairs (BLiMP), sinks by branch.

    python -m evidence.language --data DATA --out OUT      # the same of SmolLM2-135M before it learns

DATA holds ``evaluations`` (JSON lines) and ``novels``. `evidence.run` asks every run that learns from text where the
former is there. Sinks are looked at in models with adapters: LoRA alone, and beside a Krause branch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evidence import logs, scorers

EPS = 0.3  # mean weight of the first token from which a head is a sink (Gu et al. 2410.10781)
PAIRS = 200  # of each of the 67 paradigms: a standard error of 0.4 points at most
PIECES, LENGTH = 8, 512  # sequences of the test text in which sinks are looked at
Row = dict[str, Any]


def asked(folder: Path | str, data: Path, *, small: bool = False) -> Row:
    """Scores of a saved model, and its sinks if it has adapters or is the base of them.

    Args:
        folder: As in `scorers.loaded`.
        data: Folder of ``evaluations`` and ``novels``.
        small: A few questions, to try the machinery.
    """
    model, encode, begin = scorers.loaded(str(folder))
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    files = data / "evaluations"
    words = scorers.lambada(model, encode, scorers.lines(files / "lambada_openai.jsonl", 4 if small else None))
    sentences = scorers.lines(files / "blimp.jsonl", 1 if small else PAIRS, each="paradigm")
    found = {
        "lambada_accuracy": words["accuracy"], "lambada_perplexity": words["perplexity"],
        "blimp": scorers.pairs(model, encode, begin, sentences)[""],
    }  # fmt: skip
    if hasattr(model.config, "krause_branch") or hasattr(model, "peft_config") or str(folder) == "smollm2":
        found |= sinks(model, pieces(encode, data / "novels" / "test.txt", 16 if small else LENGTH))
    return found


def pieces(encode: Callable[[str], list[int]], path: Path, length: int) -> Iterator[Tensor]:
    """Sequences (1, length) from the beginning of a text."""
    with path.open(encoding="utf-8") as opened:
        tokens = encode(opened.read(16 * PIECES * length))
    for i in range(0, min(PIECES * length, len(tokens) - length + 1), length):
        yield torch.tensor([tokens[i : i + length]])


@torch.no_grad()
def sinks(model: Any, sequences: Iterator[Tensor]) -> Row:
    """Weight of the first token in each branch, means over sequences, layers and heads.

    ``sink_rate``: share of heads (one of one layer and sequence) in which it is over `EPS`, divided by the queries that
    can hear it; ``first``: its mean, divided so; ``published``: divided by all queries, whatever the window.
    """
    on_first: dict[str, list[Tensor]] = {}
    gates: list[float] = []
    for ids in sequences:
        branches, shares = branches_of(model, ids.to(model.device))
        for name, layers in branches.items():
            on_first.setdefault(name, []).append(torch.stack([weights[0, :, :, 0].float().cpu() for weights in layers]))
        gates += shares
    found: Row = {}
    for name, several in on_first.items():
        weight = torch.stack(several)  # (sequences, layers, heads, queries)
        hear = model.config.krause_branch["window"] if name == "krause" else weight.shape[-1]
        first = weight[..., :hear].mean(-1)
        found |= {
            f"sink_rate_{name}": float((first > EPS).double().mean()), f"first_{name}": float(first.mean()),
            f"published_{name}": float(weight.mean()),
        }  # fmt: skip
    return found | ({"gate_krause": sum(gates) / len(gates)} if gates else {})


def branches_of(model: Any, ids: Tensor) -> tuple[dict[str, tuple[Tensor, ...]], list[float]]:
    """Weights (1, heads, n, n) of every layer by branch, and mean shares that the gate gives the Krause branch."""
    from krause_dynamics.models import branch_weights

    if getattr(model.config, "krause_branch", None):
        both = branch_weights(model, input_ids=ids)
        return {"softmax": both.softmax, "krause": both.krause}, [float(x[..., 1].mean()) for x in both.gate]
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    plain.set_attn_implementation("eager")
    return {"softmax": model(input_ids=ids, output_attentions=True).attentions}, []


def main(arguments: list[str] | None = None) -> int:
    """The row of the base, by which those that learn are measured."""
    parser = argparse.ArgumentParser(prog="python -m evidence.language", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of evaluations and novels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table")
    options = parser.parse_args(arguments)
    row = {"run": "smollm2-base", "experiment": "smollm2", "arm": "base", "seed": 0, "part": "untrained"}
    row |= asked("smollm2", options.data)
    old = logs.read(options.out, "smollm2", "results")
    logs.write(options.out, "smollm2", "results", logs.joined(old, [row], "results"))
    sys.stdout.write(f"{row}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
