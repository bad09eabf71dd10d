"""What theory says of the tokens of a trained model from its weights and its embeddings, beside what they do.

* Contraction of a block. With all tokens at their mean m, attention has nothing to choose and a block is a smooth map;
  to first order it takes deviations D to  B'(m) D, whatever attention would choose. Predicted is the residual
  |Y - mean|/|Y| of  Y = B(m) + B'(m) D  over that of the tokens before (Dong et al. 2103.03404 bound the part that is
  left out, which is cubic in D); measured is the same of  B(m + D). The first token, which most often is massive, is
  put at the mean, and left out of both residuals.
* Effective beta of a head: spread of its scores over the spread of the cosines of the tokens before the block, so that
  beta <u_i, u_j> has the spread of its scores.
* Winning mode. Near the uniform law on the sphere S^(D-1) a perturbation of degree l grows fastest at the l of
  `theory.winning_mode` (2410.23228): 1 draws all tokens to one side, 2 to two opposite ones. Measured is the l whose
  amplitude  1/N^2 sum_ij P_l(<u_i, u_j>), P_l Gegenbauer's polynomial, has grown most from the embedding to the last
  layer. D is the dimension that N tokens can span, min(d, N).
* Pull of a head: whether it writes along what it hears, or against it (`ov_circuits`): predicted from the eigenvalues
  of its OV circuit, of weights alone. A head that repels drives no mode (0); one that attracts that of its own beta.
* Clusters. Two tokens draw each other most at the angle of `theory.strongest_attraction_angle` (2601.21366); tokens
  that no chain of steps up to its chord joins have little to do with each other. Predicted are the components of the
  embeddings at that chord; measured those of the last layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics import theory
from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics.analysis import clusters
from krause_dynamics.checkpoints import ov_circuits
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.layer_state import ROUNDING
from krause_dynamics.checkpoints.near_mean import predicted_contraction, residual
from krause_dynamics.checkpoints.patterns import grown_mode
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.residual_stream import entering_state, state_name
from krause_dynamics.checkpoints.sampled_rows import HEARD
from krause_dynamics.checkpoints.stream import Passes

if TYPE_CHECKING:
    import xarray


@reads(sequence_length=Maybe(COUNT), max_sequences=Maybe(COUNT), batch_size=COUNT)
def forecast(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    batch_size: int = 8,
    progress: bool | Callable[[int, int], None] = False,
    **options: Any,
) -> xarray.Dataset:
    """Predicted beside measured: contraction of every block, winning mode, number of clusters.

    The formulas stand at the top of `checkpoints.forecast`. They assume what a trained model need not have (tokens near
    their mean; or directions near uniform, one beta, no feed-forward layers): how far the two sides are apart says how
    much of what the model does is attention's own doing.

    Args:
        model: As of ``kd.analyze``, in float32 or float64; of a composed one with ``part=``.
        inputs: As there; sequences of at least 8 tokens, from which on rows of scores have a spread.
        tokenizer: Instead of the checkpoint's own.
        sequence_length: Cut text into consecutive sequences of this many tokens.
        max_sequences: Keep only the first ones.
        batch_size: Sequences per forward pass; each block runs three times.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.
        **options: Further ones of ``kd.analyze`` that load a model or cut inputs: ``dtype``, ``part``, ``device``,
            ``trust_remote_code``, ``truncate``, ``pad_token``, ``blocks``.

    Returns:
        Dataset over ``side`` (predicted, measured): ``contraction`` (side, sequence, block), below 1 where tokens come
        together, ``winning_mode`` and ``clusters`` (side, sequence); and what the predictions are made of:
        ``effective_beta`` (sequence, block, head) and ``chord`` (sequence), of the median of all beta. NaN where no row
        hears 8 keys (narrow windows). Of every head ``pull`` (side, sequence, block, head) in [-1, 1], ``head_mode``
        (sequence, block, head), and of its OV circuit ``ov_real`` and ``ov_imaginary`` (block, head, eigenvalue),
        largest modulus first, and ``ov_sign`` (block, head) = sum of real parts over sum of moduli: 1 attracts along
        all directions, -1 repels. NaN, or left out where it is so in all blocks, where values are no affine map of what
        attention is given, or attention is seen by its weights alone (windows of a picture, families without
        transformers' registry).

    Raises:
        ValueError: A sequence of fewer than 8 tokens, a model in half precision, or bad inputs.
        UnsupportedModel: Attention that cannot be recorded faithfully.
    """
    run = Passes.of(
        model, inputs, tokenizer=tokenizer, batch_size=batch_size, progress=progress,
        sequence_length=sequence_length, max_sequences=max_sequences, **options,
    )  # fmt: skip
    dtype = next(run.checkpoint.backbone.parameters()).dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"model must be float32 for a derivative by differences, which {dtype} rounds away; load it with "
            "kd.checkpoints.load(model, dtype='float32'), or convert it with model.float()"
        )
    if (shortest := int(run.inputs.lengths.min())) < HEARD:
        raise ValueError(f"inputs must be sequences of at least {HEARD} tokens, got one of {shortest}; leave it out")
    states_alone = replace(run, path="none", tier="none", report=None)
    circuits = ov_circuits.circuits_of(run)  # of weights alone
    rows: dict[int, dict[str, np.ndarray]] = {}
    for members, batch in run.batches():
        predicted: list[np.ndarray] = []  # (b,) of each block
        with _linearised(run, predicted), states_alone.watching(_Nothing()):
            run.run(run.checkpoint.backbone, batch)  # predictions first
        seen = _Seen()
        run.stream(batch, seen)
        pulls = ov_circuits.pulls(run, circuits, batch)
        for i, sequence in enumerate(members):
            row, before = seen.row(i), np.array([found[i] for found in predicted])
            # Tokens that are one have nothing to contract.
            told = {"predicted": np.where(np.isnan(row["contraction"]), np.nan, before)}
            rows[sequence] = row | told | {"pull": _of_heads(pulls, i, seen)}
    return _dataset(run, rows, circuits)


def _of_heads(found: Sequence[Tensor | None], i: int, seen: _Seen) -> np.ndarray:
    """Numbers (b, heads) of sequence i of every block, (blocks, heads); NaN where there are none."""
    nothing = np.full(seen.spreads[0].shape[1], np.nan)
    return np.stack([nothing if x is None else x[i].cpu().numpy() for x in found])


def _dataset(
    run: Passes, rows: dict[int, dict[str, np.ndarray]], circuits: list[ov_circuits.Circuit | None]
) -> xarray.Dataset:
    """What was found of each sequence, by its number, and the circuits."""
    import xarray

    def pick(name: str) -> np.ndarray:
        return np.stack([rows[i][name] for i in range(len(run.inputs))])

    sides = ("side", "sequence")
    words = {
        "contraction": "residual |X - mean|/|X| after a block over that before",
        "winning_mode": "degree of the perturbation of the uniform law that grows most",
        "clusters": "components of tokens at the chord of strongest attraction",
        "effective_beta": "spread of the scores over that of the tokens' cosines",
        "chord": "chord at which two tokens of that beta attract each other most",
    }
    found: dict[str, Any] = {
        "contraction": ((*sides, "block"), np.stack([pick("predicted"), pick("contraction")])),
        "winning_mode": (sides, pick("modes").T),
        "clusters": (sides, pick("clusters").T),
        "effective_beta": (("sequence", "block", "head"), pick("beta")),
        "chord": ("sequence", pick("chord")),
    }
    found |= ov_circuits.variables(circuits, pick("pull"), pick("beta"), pick("dimension"))
    coords = {"side": ["predicted", "measured"], "block": np.arange(1, run.expected + 1)}
    meta = json.dumps(describe(run), sort_keys=True)
    words |= ov_circuits.WORDS
    variables = {name: (*values, {"long_name": words[name]}) for name, values in found.items()}
    return xarray.Dataset(variables, coords=coords, attrs={"meta": meta})


class _Nothing:
    """Is told of layers and keeps nothing."""

    def state(self, layer: int, tokens: Tensor) -> None:
        """Nothing."""

    def attention(self, block: int, found: HeadStatistics) -> None:
        """Nothing."""


@contextmanager
def _linearised(run: Passes, predicted: list[np.ndarray]) -> Iterator[None]:
    """Inside, every block that is about to run is first asked what it does near the mean of its tokens."""

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering = entering_state(module, args, kwargs)
        axes = entering.shape[1:-1]  # of a map, rows and columns

        def block(states: Tensor) -> Tensor:
            states = states.unflatten(1, axes)
            given = (states, *args[1:]) if args else args
            named = kwargs if args else kwargs | {state_name(kwargs): states}
            out = module.forward(*given, **named)
            answer: Tensor = out[0] if isinstance(out, tuple | list) else out
            return answer.flatten(1, -2)

        predicted.append(predicted_contraction(block, entering.flatten(1, -2)))

    hooks = [
        module.register_forward_pre_hook(before, with_kwargs=True)
        for module in {id(block): block for block in run.blocks}.values()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Seen:
    """What a forward pass of sequences of one length does."""

    def __init__(self) -> None:
        self.residuals: list[np.ndarray] = []
        self.cosines: list[np.ndarray] = []
        self.spreads: list[np.ndarray] = []
        self.first: Tensor | None = None
        self.last: Tensor | None = None

    def state(self, layer: int, tokens: Tensor) -> None:
        """The tokens (b, T, d) after a block."""
        exact = tokens.double().cpu()
        unit = torch.nn.functional.normalize(exact[:, 1:], dim=-1)
        self.residuals.append(residual(exact).numpy())
        number = unit.shape[1]
        upper = torch.triu_indices(number, number, 1)
        self.cosines.append((unit @ unit.mT)[:, upper[0], upper[1]].std(-1, correction=0).numpy())
        self.first = unit if layer == 0 else self.first
        self.last = unit

    def attention(self, block: int, found: HeadStatistics) -> None:
        """The spread of scores (b, heads) of a block."""
        self.spreads.append(found.score_spread.double().cpu().numpy())

    def row(self, i: int) -> dict[str, np.ndarray]:
        """What is told of one sequence."""
        assert self.first is not None
        assert self.last is not None
        first, last = self.first[i].numpy(), self.last[i].numpy()
        residuals = np.array([found[i] for found in self.residuals])
        spreads, cosines = (np.array([found[i] for found in x]) for x in (self.spreads, self.cosines[:-1]))
        # Tokens that are one have no spread and nothing to contract; what float32 leaves of them is rounding.
        spread, before = (np.where(x > ROUNDING, x, np.nan) for x in (cosines, residuals[:-1]))
        beta, contraction = spreads / spread[:, None], residuals[1:] / before
        dimension = max(2, min(first.shape))
        whole = {"contraction": contraction, "beta": beta, "dimension": np.array(dimension)}
        if np.isnan(beta).all():
            return whole | {"chord": np.array(np.nan), "modes": np.full(2, np.nan), "clusters": np.full(2, np.nan)}
        middle = float(np.nanmedian(beta))
        chord = 2.0 * np.sin(theory.strongest_attraction_angle(beta=middle) / 2.0)
        counts = [float(clusters.curve(x, [chord], metric="chord").count[0]) for x in (first, last)]
        modes = theory.winning_mode(middle, dimension=dimension), grown_mode(first, last, dimension)
        return whole | {"chord": np.array(chord), "modes": np.array(modes, float), "clusters": np.array(counts)}
