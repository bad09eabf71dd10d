"""What must be equal between a family with our attention and the same model with its own eager attention."""

from __future__ import annotations

from typing import Any

import torch

import krause_dynamics as kd
import krause_dynamics.nn  # noqa: F401  the names of the attention
from tests.families.table import Family, inputs

KRAUSE = kd.softmax(1.0).to_dict()
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4  # sums of many more float32 roundings


def models(family: Family) -> tuple[Any, Any]:
    """(ours, eager) with the same weights."""
    return family.build("krause_softmax", KRAUSE), family.build("eager")


def main(output: Any) -> torch.Tensor:
    """What a model computes: logits, or the last state."""
    return next(output[k] for k in ("logits", "last_hidden_state") if k in output)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((one - other).abs().max() / other.abs().max())


def forward(family: Family) -> float:
    """A plain pass."""
    ours, eager = models(family)
    given = inputs(family.kind)
    return distance(main(ours(**given)), main(eager(**given)))


def weights(family: Family) -> float:
    """The weights of all layers, one call."""
    ours, eager = models(family)
    given = inputs(family.kind)
    mine, theirs = (model(**given, output_attentions=True) for model in (ours, eager))
    key = "decoder_attentions" if family.kind == "pair" else "attentions"
    if not theirs.get(key):
        return 0.0 if not mine.get(key) else float("nan")
    assert len(mine[key]) == len(theirs[key])
    return max(distance(a, b) for a, b in zip(mine[key], theirs[key], strict=True))


def gradients(family: Family) -> float:
    """Of a random linear function of the output (its square is constant after a LayerNorm), all weights at once."""
    found = []
    with torch.enable_grad():
        for model in models(family):
            out = main(model(**inputs(family.kind)))
            (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).mean().backward()
            grads = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
            found.append(torch.cat(grads))
    return distance(*found)


def left_padding(family: Family) -> float:
    """Three padded places before the second sequence."""
    ours, eager = models(family)
    given = inputs("text")
    mask = torch.ones_like(given["input_ids"])
    mask[1, :3] = 0
    there = mask.bool()
    if family.kind == "pair":
        given["decoder_input_ids"] = given["input_ids"].flip(0)[:, :6]
        there = torch.ones(2, 6, dtype=torch.bool)
    mine, theirs = (main(model(**given, attention_mask=mask)) for model in (ours, eager))
    return distance(mine[there], theirs[there])


def packed(family: Family) -> float:
    """Two sequences in one row, told by positions that restart."""
    ours, eager = models(family)
    given = {"input_ids": inputs("text")["input_ids"][:1], "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])}
    return distance(main(ours(**given, use_cache=False)), main(eager(**given, use_cache=False)))


def generated(family: Family, **how: Any) -> float:
    """Scores of 6 generated tokens after a prompt with left padding; nan where another token was chosen."""
    ours, eager = models(family)
    ids = inputs("text")["input_ids"]
    mask = torch.ones_like(ids)
    if "assistant" not in how:
        mask[1, :3] = 0
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True,
               "output_logits": True, "pad_token_id": 0, **how}  # fmt: skip
    if options.pop("assistant", False):
        ids, mask = ids[:1], mask[:1]
        mine = ours.generate(
            ids, attention_mask=mask, assistant_model=family.build("krause_softmax", KRAUSE), **options
        )
    else:
        mine = ours.generate(ids, attention_mask=mask, **options)
    theirs = eager.generate(
        ids, attention_mask=mask, **{k: v for k, v in options.items() if k != "cache_implementation"}
    )
    if not torch.equal(mine.sequences, theirs.sequences):
        return float("nan")
    return distance(torch.stack(mine.logits), torch.stack(theirs.logits))


CHECKS: dict[str, Any] = {
    "forward": (("text", "encoder", "pair", "picture"), forward),
    "gradients": (("text", "encoder", "pair", "picture"), gradients),
    "weights": (("text", "encoder", "pair", "picture"), weights),
    "left padding": (("text", "encoder", "pair"), left_padding),
    "packed rows": (("text",), packed),
    "dynamic cache": (("text",), generated),
    "static cache": (("text",), lambda f: generated(f, cache_implementation="static", disable_compile=True)),
    "beams": (("text",), lambda f: generated(f, num_beams=2)),
    "assisted": (("text",), lambda f: generated(f, assistant=True)),
}
"""By name: the kinds of families that it is for, and the check, which gives the largest relative difference."""
GENERATED = ("dynamic cache", "static cache", "beams", "assisted")
