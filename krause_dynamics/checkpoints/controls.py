"""Controls of an analysis: the same measures where the text, the weights or the first token are not what they were.

A sink that random tokens show as well is no matter of meaning; one that needs the first token to be the special one
goes when that token goes; clusters that random weights show were there before training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krause_dynamics._files import attributes
from krause_dynamics.checkpoints.backbone import of_transformers
from krause_dynamics.checkpoints.load import Checkpoint
from krause_dynamics.checkpoints.sequences import model_inputs
from krause_dynamics.checkpoints.tokens import Tokens
from krause_dynamics.errors import UnsupportedModel

if TYPE_CHECKING:
    import xarray

GIVEN = "as given"
CONTROLS = ("shuffled", "random", "repeated", "random_weights", "with_bos", "without_bos")


def checked(controls: str | Sequence[str]) -> tuple[str, ...]:
    """Names of controls, each once.

    Raises:
        ValueError: No control of that name.
    """
    names = (controls,) if isinstance(controls, str) else tuple(controls)
    for name in names:
        if name not in CONTROLS:
            raise ValueError(f"controls must be among {list(CONTROLS)}, received {name!r}")
    return tuple(dict.fromkeys(names))


def analyzed(
    analyze: Callable[[Checkpoint, Any], xarray.Dataset],
    checkpoint: Checkpoint,
    inputs: Any,
    controls: tuple[str, ...],
    rng: int | np.random.Generator,
    options: dict[str, Any],
) -> xarray.Dataset:
    """The analysis as given and under every control, along a first dimension ``control``.

    Raises:
        ValueError: A control that these inputs, this tokenizer or these sequences do not have.
    """
    import xarray

    prepared = model_inputs(checkpoint, inputs, **options)
    generator = np.random.default_rng(rng)
    cases = {GIVEN: (checkpoint, prepared)}
    for name in controls:
        if name == "random_weights":
            cases[name] = untrained(checkpoint, int(generator.integers(2**31))), prepared
        else:
            cases[name] = checkpoint, changed(prepared, name, checkpoint, generator)
    found = {name: analyze(*case) for name, case in cases.items()}
    joined = xarray.concat(
        list(found.values()), "control", data_vars="all", coords="minimal", compat="override", join="exact",
        combine_attrs="override",
    )  # fmt: skip
    meta = json.loads(found[GIVEN].attrs["meta"]) | {"controls": list(controls)}
    return joined.assign_coords(control=list(found)).assign_attrs(attributes(meta))


def changed(inputs: Any, name: str, checkpoint: Checkpoint, rng: np.random.Generator) -> Tokens:
    """Sequences with other tokens; those that the tokenizer calls special stay where they are, unless they are meant.

    Args:
        inputs: Sequences of token ids.
        name: ``"shuffled"`` (the tokens of each sequence in another order), ``"random"`` (drawn evenly from the
            vocabulary, or from the ids that are there where a module does not say it), ``"repeated"`` (one drawn token,
            again and again), ``"with_bos"`` (the tokenizer's first token before each, the last one dropped so that
            lengths stay) or ``"without_bos"``.
        checkpoint: Whose vocabulary and tokenizer count.
        rng: Where tokens are drawn from.

    Raises:
        ValueError: No token ids, or no such token.
    """
    if not isinstance(inputs, Tokens):
        raise ValueError(
            f"controls={name!r} changes token ids, and {inputs.source} have none; 'random_weights' needs none"
        )
    if name in ("with_bos", "without_bos"):
        return replace(inputs, sequences=_first_changed(inputs, name, checkpoint))
    special = set(getattr(checkpoint.tokenizer, "all_special_ids", ()))
    vocabulary = np.setdiff1d(_vocabulary(inputs, checkpoint), sorted(special))
    sequences = []
    for sequence in inputs.sequences:
        ids = np.array(sequence)
        free = np.flatnonzero(~np.isin(ids, sorted(special)))
        if name == "shuffled":
            ids[free] = rng.permutation(ids[free])
        else:
            ids[free] = rng.choice(vocabulary, len(free) if name == "random" else 1)
        sequences.append(tuple(ids.tolist()))
    return replace(inputs, sequences=tuple(sequences))


def _vocabulary(inputs: Tokens, checkpoint: Checkpoint) -> np.ndarray:
    """All ids of a model; of a module that does not say how many it knows, those that it is shown."""
    known = getattr(getattr(checkpoint.backbone, "config", None), "vocab_size", None)
    return np.unique(np.concatenate(inputs.sequences)) if known is None else np.arange(int(known))


def _first_changed(inputs: Tokens, name: str, checkpoint: Checkpoint) -> tuple[tuple[int, ...], ...]:
    tokenizer = checkpoint.tokenizer
    first = next(
        (i for i in (getattr(tokenizer, n, None) for n in ("bos_token_id", "cls_token_id")) if i is not None), None
    )
    if first is None:
        first = getattr(getattr(checkpoint.backbone, "config", None), "bos_token_id", None)
    if first is None:
        raise ValueError(f"controls={name!r} needs a first token, and neither tokenizer nor configuration names one")
    has = [sequence[0] == first for sequence in inputs.sequences]
    if name == "with_bos":
        pairs = zip(inputs.sequences, has, strict=True)
        return tuple(sequence if there else (first, *sequence[:-1]) for sequence, there in pairs)
    if not any(has) or min(map(len, inputs.sequences)) < 2:
        raise ValueError(
            f"controls='without_bos': no sequence begins with the first token {first}, or one is only that"
        )
    pairs = zip(inputs.sequences, has, strict=True)
    return tuple(sequence[1:] if there else sequence for sequence, there in pairs)


def untrained(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """A model of the same configuration with the random weights that its family begins training from.

    Raises:
        UnsupportedModel: No model of transformers.
    """
    model = checkpoint.model
    if not of_transformers(model) or not hasattr(type(model), "_from_config"):
        raise UnsupportedModel(f"controls='random_weights' needs a model of transformers, got {type(model).__name__}")
    weight = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)._from_config(
            model.config, attn_implementation=model.config._attn_implementation, dtype=weight.dtype
        )
    return replace(
        checkpoint, model=fresh.to(weight.device).eval(), meta=checkpoint.meta | {"source": "random weights"}
    )
