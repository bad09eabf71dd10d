"""Layers of bounded confidence looked at: sigma, reach, who is heard how far away, and the theorem's hypotheses.

For a Krause layer the paper (2602.11534, appendix C) has two statements. Groups of tokens that do not hear each other
under the window *and* the top-k graph give the eigenvalue 1 at least that many times; and a truncated Gaussian rule
draws each of several separated groups to one point. A public critique finds the inequality behind the second active
only within about 4.86 degrees of a group's centroid. Told of are therefore shares of (token) in each block and head:

* separated: the token is of a closed class of the support, one of at least two: nobody in it hears a token outside;
* near its centroid: the key of the token lies within 4.86 degrees of the mean of the keys that it hears, as weighed;
* theorem: both;
* within sigma: all keys that it hears are within sigma of its query, where the pull  r exp(-r^2 / 2 sigma^2)  still
  rises with the distance r.

Separation is  sigma sqrt(2 ln(100 n)), n the mean number of keys heard: keys beyond it weigh less than one per cent of
one key at distance 0, all together. Predicted groups are the components of the keys at that distance, whoever may hear
whom; measured are the closed classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics.analysis import clusters, operators
from krause_dynamics.checkpoints import own_attention
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call

if TYPE_CHECKING:
    import xarray

NEAR = 4.86  # degrees
FAINT = 0.01  # of the weight of a key at distance 0: what is heard from beyond the separation
HEAD = ("sequence", "block", "head")
WORDS = {
    "sigma": "bandwidth",
    "window": "keys that index rules admit at most",
    "top_k": "keys that rank admits (0: all)",
    "heard": "keys that a token hears, mean",
    "distance": "distance from query to heard key, in units of sigma, mean over pairs",
    "separation": "distance beyond which keys weigh less than one per cent of one at distance 0",
    "groups_predicted": "components of the keys at the separation",
    "groups": "closed classes: groups that hear nobody outside",
    "blocks_apart": "blocks of the support that do not hear each other",
    "share_separated": "tokens of a closed class, where there are several",
    "share_near_centroid": "tokens whose key lies within 4.86 degrees of the mean of the keys that they hear",
    "share_theorem": "tokens of which both holds",
    "share_within_sigma": "tokens all of whose heard keys are within sigma of their query",
}


@reads(sequence_length=Maybe(COUNT), max_sequences=Maybe(COUNT), batch_size=COUNT)
def confidence(
    model: Any,
    inputs: Any,
    *,
    blocks: Sequence[torch.nn.Module] | None = None,
    tokenizer: Any = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    batch_size: int = 1,
    progress: bool | Callable[[int, int], None] = False,
    **options: Any,
) -> xarray.Dataset:
    """Geometry of Krause layers: bandwidth, reach, separation, groups, and how many tokens the paper's theorem covers.

    The definitions stand at the top of `checkpoints.confidence`.

    Args:
        model: With Krause layers: of ``kd.models``, krausified, with a Krause branch, or any module with its blocks.
        inputs: As of ``kd.analyze``.
        blocks: The blocks in order, of a module of one's own.
        tokenizer: Instead of the checkpoint's own.
        sequence_length: Cut text into consecutive sequences of this many tokens.
        max_sequences: Keep only the first ones.
        batch_size: Sequences per forward pass; supports take batch x heads x T^2 bytes.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.
        **options: Further ones of ``kd.analyze`` that load a model or cut inputs: ``dtype``, ``part``, ``device``,
            ``trust_remote_code``, ``truncate``, ``pad_token``.

    Returns:
        Dataset over (sequence, block, head): ``sigma``, ``window``, ``top_k``, ``heard``, ``distance``, ``separation``,
        ``groups_predicted``, ``groups``, ``blocks_apart``, ``share_separated``, ``share_near_centroid``,
        ``share_theorem``, ``share_within_sigma``; of blocks that have a Krause layer (coordinate ``block``, from 1).

    Raises:
        UnsupportedModel: No Krause layer, or two in a block.
        ValueError: Bad inputs.
    """
    import xarray

    run = Passes.of(
        model, inputs, tokenizer=tokenizer, attention=None, batch_size=batch_size, progress=progress, blocks=blocks,
        sequence_length=sequence_length, max_sequences=max_sequences, **options,
    )  # fmt: skip
    arrays: dict[str, np.ndarray] = {}
    places: list[int] = []
    for members, batch in run.batches():
        watcher = _Watcher()
        with run.watching(watcher) as watch:
            stream = watch.stream
            with own_attention.listening(partial(getattr, stream, "block"), watcher.call):
                run.run(run.checkpoint.backbone, batch)
        stream.check(run.expected)
        places = sorted(watcher.found)
        if not places:
            raise UnsupportedModel(
                f"{type(run.checkpoint.backbone).__name__} has no Krause layer, of a score that is a distance; "
                "kd.checkpoints.forecast is for any model"
            )
        for name in WORDS:
            values = np.stack([watcher.found[place][name] for place in places], 1)
            arrays.setdefault(name, np.empty((len(run.inputs), *values.shape[1:])))[members] = values
    variables = {name: (HEAD, values, {"long_name": WORDS[name]}) for name, values in arrays.items()}
    coords = {"block": np.array(places) + 1}
    return xarray.Dataset(variables, coords=coords, attrs={"meta": json.dumps(describe(run), sort_keys=True)})


class _Watcher:
    """Is told of calls as they are made."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, np.ndarray]] = {}

    def state(self, layer: int, tokens: torch.Tensor) -> None:
        """Nothing: the calls are told of."""

    def attention(self, block: int, found: Any) -> None:
        """Nothing."""

    def call(self, block: int, call: Call) -> None:
        """Of a block; a branch of dot products has no confidence."""
        if not call.distance:
            return
        if block in self.found:
            raise UnsupportedModel(f"block {block + 1} makes several calls of Krause attention, which would be mixed")
        with torch.no_grad():
            self.found[block] = _of_call(call)


def _of_call(call: Call) -> dict[str, np.ndarray]:
    """What is told of one call, (b, h) each."""
    rule, request = own_attention.lifted(call)
    n = request.queries.shape[-2]
    logs = own_attention.log_rows(rule, request, slice(0, n))
    seen = own_attention.visible(rule, request, call.reach.right == 0)
    sigma = call.coefficients().double().rsqrt().cpu().numpy()
    window = seen.visible_keys.amax(-1).expand(sigma.shape).cpu().numpy()
    q, k = (x.double().cpu().numpy() for x in (request.queries, request.sources))
    support, weights = (logs > -torch.inf).cpu().numpy(), logs.double().softmax(-1).nan_to_num(0.0).cpu().numpy()
    found = {name: np.empty(sigma.shape) for name in WORDS}
    for place in np.ndindex(*sigma.shape):
        of_head = _of_head(q[place], k[place], support[place], weights[place], float(sigma[place]))
        reached = {"window": float(window[place]), "top_k": float(call.reach.top_k)}
        for name, value in (of_head | reached).items():
            found[name][place] = value
    return found


def _of_head(
    queries: np.ndarray, keys: np.ndarray, support: np.ndarray, weights: np.ndarray, sigma: float
) -> dict[str, float]:
    """Of queries and keys (T, d), who is heard (T, T), and with what weight."""
    from scipy.spatial.distance import cdist

    distances, heard = cdist(queries, keys), float(support.sum(1).mean())
    structure = operators.structure(support)
    several = structure.multiplicity > 1
    separated = several & np.isin(structure.classes, structure.closed)
    near = _angles(keys, weights @ keys) <= NEAR
    separation = sigma * math.sqrt(2.0 * math.log(max(heard, 1.0) / FAINT))
    return {
        "sigma": sigma,
        "heard": heard,
        "distance": float(distances[support].mean()) / sigma,
        "separation": separation,
        "groups_predicted": float(clusters.curve(keys, [separation]).count[0]),
        "groups": float(structure.multiplicity),
        "blocks_apart": float(structure.block_count),
        "share_separated": float(separated.mean()),
        "share_near_centroid": float(near.mean()),
        "share_theorem": float((separated & near).mean()),
        "share_within_sigma": float((np.where(support, distances, 0.0).max(1) <= sigma).mean()),
    }


def _angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Between rows, in degrees; from the chord of the directions, which is exact where they nearly agree."""
    units = [x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(float).tiny) for x in (one, other)]
    half = np.linalg.norm(units[0] - units[1], axis=-1) / 2.0
    angles: np.ndarray = np.degrees(2.0 * np.arcsin(np.clip(half, 0.0, 1.0)))
    return angles
