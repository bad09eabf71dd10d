"""Encoder-decoders in one pass: both stacks as `analyze` sees one, and what the decoder hears of the encoder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import COUNT, reads
from krause_dynamics._progress import ProgressBar
from krause_dynamics.checkpoints import capture, cross_attention, labelled
from krause_dynamics.checkpoints import measures as table
from krause_dynamics.checkpoints.analyze import EPS, RADII, increasing
from krause_dynamics.checkpoints.load import Checkpoint, load
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.pair_pass import Stack, watching
from krause_dynamics.checkpoints.pairs import Features, Pairs
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel

if TYPE_CHECKING:
    import xarray

STACKS = ("encoder", "decoder")


@reads(batch_size=COUNT, min_queries=COUNT)
def encoder_decoder(
    model: Any,
    inputs: Any,
    targets: Any,
    *,
    tokenizer: Any = None,
    eps: Sequence[float] = EPS,
    radii: Sequence[float] = RADII,
    min_queries: int = 8,
    measures: str | Measure | Sequence[str | Measure] = "default",
    batch_size: int = 8,
    progress: bool | Callable[[int, int], None] = False,
) -> dict[str, xarray.Dataset]:
    """Both stacks of an encoder-decoder while the decoder hears the encoder, and the attention between them.

    ``analyze(model, part="encoder")`` looks at one stack alone, whose decoder hears nobody; here it is shown pairs.

    Args:
        model: A model of ``transformers`` with an encoder and a decoder (T5, BART, Whisper, ...), or what
            `load` takes or gives.
        inputs: What the encoder reads: text or token ids, see `prepare`; for other encoders the floating array
            that the model's processor makes, such as (n, mels, frames) or (n, samples) of sound, one an entry of the
            first axis.
        targets: What the decoder is shown, one for each input. Text is put behind the decoder's start token and loses
            its last token, as in training; token ids are shown as they stand.
        tokenizer: Instead of the checkpoint's own.
        eps: Thresholds of sink rates.
        radii: Chords at which clusters are counted.
        min_queries: A key needs that many queries to be a strongest key of its own stack.
        measures: As of `analyze`, of both stacks; none that is centred on a corpus.
        batch_size: Pairs per forward pass; pairs of unlike lengths are never run together.
        progress: ``True`` draws a progress bar; or a function ``progress(pairs done, all pairs)``.

    Returns:
        ``"encoder"`` and ``"decoder"``: each as of `analyze`, its layers those of its stack. ``"cross"``: over
        (sequence, block of the decoder, head) ``importance_first`` and ``importance_last`` = attention that the first
        and the last source receive, mean over queries, ``strongest_source`` and ``strongest_importance``, ``entropy``
        (over ln of the number of sources), ``participation``; with a further ``source`` ``importance`` of every source
        (NaN beyond those of a pair), ``quarter`` ``place_by_quarter``, ``row`` and ``place`` ``top_sources``; over
        (which, block, head, eps) ``sink_rate`` of the first, last and strongest source; ``length`` and ``sources``.

    Raises:
        ValueError: Inputs and targets that are no pairs, or a measure that needs two passes.
        UnsupportedModel: No encoder-decoder, or attention that cannot be recorded faithfully.
    """
    wanted = table.chosen(measures)
    if centred := [measure.name for measure in wanted if measure.centred]:
        raise ValueError(f"measures {centred} are centred on a corpus, which pairs are not passed twice for")
    bounds, chords = increasing("eps", eps, 1.0), increasing("radii", radii, 2.0)
    checkpoint = load(model, tokenizer=tokenizer)
    _check(checkpoint.backbone)
    pairs = Pairs.of(inputs, targets, checkpoint)
    report = ProgressBar("pairs") if progress is True else progress or None
    kept = {name: _Kept(len(pairs.targets)) for name in (*STACKS, "cross")}
    stacks = [Stack.of(checkpoint, name) for name in STACKS]
    done = 0
    for members, batch in pairs.batches(batch_size):
        layers = {name: table.Measuring(wanted, chords) for name in STACKS}
        layers["cross"] = table.Measuring(cross_attention.MEASURES, chords)
        with watching(checkpoint.backbone, stacks, layers, min_queries) as tokens:
            checkpoint.backbone(**pairs.arguments(batch, checkpoint.backbone), use_cache=False)
        for name, found in layers.items():
            kept[name].put(members, found.arrays(), tokens[name])
        done += len(members)
        if report is not None:
            report(done, len(pairs.targets))
    return _datasets(checkpoint, pairs, stacks, kept, (wanted, bounds, chords), min_queries)


def _check(model: Any) -> None:
    name = type(model).__name__
    if "decoder_input_ids" not in inspect.signature(model.forward).parameters:
        raise UnsupportedModel(f"{name} is no encoder-decoder (it takes no decoder_input_ids); use kd.analyze")
    with capture.lock(model):
        reason = capture.refusal(model)
    if reason is not None:
        raise UnsupportedModel(
            f"attention cannot be recorded: {reason}. Each stack's states alone: kd.analyze(model, part='encoder', "
            "attention=None)"
        )


@dataclass
class _Kept:
    """Arrays of all pairs, as batches bring them."""

    number: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))

    def put(self, members: list[int], found: dict[str, np.ndarray], tokens: int) -> None:
        """Those of some pairs; axes over sources grow to the longest."""
        if not len(self.tokens):
            self.tokens = np.zeros(self.number, dtype=int)
        self.tokens[members] = tokens
        for name, values in found.items():
            missing: Any = np.nan if values.dtype.kind == "f" else -1
            shape = (self.number, *values.shape[1:])
            target = self.arrays.get(name, np.full(shape, missing, dtype=values.dtype))
            longest = tuple(map(max, zip(target.shape[1:], values.shape[1:], strict=True)))
            grown = np.full((self.number, *longest), missing, dtype=values.dtype)
            before: Any = tuple(map(slice, target.shape))
            now: Any = (members, *map(slice, values.shape[1:]))
            grown[before], grown[now] = target, values
            self.arrays[name] = grown


def _datasets(
    checkpoint: Checkpoint,
    pairs: Pairs,
    stacks: list[Stack],
    kept: dict[str, _Kept],
    asked: tuple[Sequence[Measure], np.ndarray, np.ndarray],
    min_queries: int,
) -> dict[str, xarray.Dataset]:
    found: dict[str, xarray.Dataset] = {}
    for stack, inputs in zip(stacks, (pairs.sources, pairs.targets), strict=True):
        tokens = kept[stack.name].tokens
        shown: Any = Features(inputs.values, inputs.argument, tokens) if isinstance(inputs, Features) else inputs
        half = Checkpoint(checkpoint.model, checkpoint.tokenizer, checkpoint.name, checkpoint.meta, stack.name)
        run = Passes(half, shown, stack.blocks, stack.expected, "registry", 1, min_queries, "statistics", (), None)
        meta = describe(run) | {"min_queries": min_queries, "distance": "chord"}
        found[stack.name] = labelled.analysis(asked[0], kept[stack.name].arrays, tokens, *asked[1:], meta)
    arrays, sources = kept["cross"].arrays, kept["encoder"].tokens
    meta = describe(run) | {"part": "cross"}
    cross = labelled.dataset(cross_attention.MEASURES, arrays, {}, meta)
    rates = cross_attention.rates(arrays["importance"], sources, asked[1])
    about = {"long_name": "pairs in which the importance of that source exceeds eps (per cent)"}
    found["cross"] = cross.assign(
        sink_rate=(("which", "block", "head", "eps"), rates, about),
        length=("sequence", kept["decoder"].tokens, {"long_name": "tokens of the decoder"}),
        sources=("sequence", sources, {"long_name": "tokens of the encoder"}),
    ).assign_coords(which=list(cross_attention.WHICH), eps=asked[1])
    return found
