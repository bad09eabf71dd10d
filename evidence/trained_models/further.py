"""Further questions to trained models, whose answers are stored small beside the others.

python -m evidence.trained_models.further NAME ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import krause_dynamics as kd
from evidence.trained_models import RESULTS
from evidence.trained_models.analyses import LENGTH, TEXT, rounded
from krause_dynamics.checkpoints import Checkpoint, load

FOLDER = RESULTS / "further"
TRAINED = Path(__file__).parents[1] / "trained"
SHOWN = ("importance_first", "first_token_score", "entropy", "even_importance_first", "even_first_token_score", "gate")
ROWS: dict[str, Any] = {"sequence_length": LENGTH, "max_sequences": 12}


def _smollm2() -> Checkpoint:
    return load("smollm2-135m", dtype="float32")


def smollm2_forecast() -> dict[str, Any]:
    """Theory beside what SmolLM2 does on twelve texts, and the eigenvalues of its OV circuits."""
    return {"smollm2_forecast": rounded(kd.checkpoints.forecast(_smollm2(), TEXT, **ROWS))}


def smollm2_tracks() -> dict[str, Any]:
    """Its clusters through the layers, on the first text."""
    model = _smollm2()
    run = kd.checkpoints.record(model, TEXT, sequence_length=LENGTH, max_sequences=1, attention=None)
    return {"smollm2_tracks": kd.checkpoints.tracks(run, radius=0.7, tokenizer=model.tokenizer)}


def smollm2_branches() -> dict[str, Any]:
    """With a Krause branch as it is before it has learned anything."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = _smollm2()
    decoder = LlamaForCausalLM(model.backbone.config)
    decoder.model = model.backbone  # its head are its embeddings, and not heard here
    ids = model.tokenizer(TEXT.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    gated = kd.models.add_krause_branch(decoder).eval()
    rows = [ids[i : i + LENGTH] for i in range(0, LENGTH * 4, LENGTH)]
    found = kd.models.branch_statistics(gated, rows)
    return {"smollm2_branches": found[list(SHOWN)]}


def digits_confidence() -> dict[str, Any]:
    """The autoregressive Krause model that the repository holds, on the digits that it was not trained on."""
    model = kd.models.KARM.from_pretrained(TRAINED / "krause").eval()
    digits = np.load(TRAINED / "digits.npy").reshape(-1, model.config.image_size**2)
    return {"digits_confidence": kd.checkpoints.confidence(model, digits[:12].astype(int))}


ANSWERS: dict[str, Callable[[], dict[str, Any]]] = {
    "smollm2_forecast": smollm2_forecast,
    "smollm2_tracks": smollm2_tracks,
    "smollm2_branches": smollm2_branches,
    "digits_confidence": digits_confidence,
}


def main(names: list[str]) -> None:
    """Ask what is named, or everything."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or ANSWERS:
        for stem, found in ANSWERS[name]().items():
            sys.stderr.write(f"wrote {kd.report.write_dataset(found, FOLDER / f'{stem}.nc')}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
