"""A trained model and some text in, a labelled Dataset over layer and head out."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics.checkpoints import by_block, labelled, stream
from krause_dynamics.checkpoints import measures as table
from krause_dynamics.checkpoints.controls import analyzed, checked
from krause_dynamics.checkpoints.load import load
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.memory import placed
from krause_dynamics.checkpoints.moments import Moments
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.stream import CUTTING, Passes
from krause_dynamics.runs.interrupting import Interrupts, Terminated
from krause_dynamics.runs.resuming import RunFile

if TYPE_CHECKING:
    import xarray

logger = logging.getLogger(__name__)

# Chords between directions: 0.1 joins tokens 6 degrees apart, 1.4 those up to 89 degrees; independent directions in a
# high dimension lie sqrt(2) = 1.41 apart, so beyond 1.4 everything is one cluster whatever the model does.
RADII = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
# 0.3 is the threshold of Gu et al. (arXiv:2410.10781); the others show how far the percentage depends on it.
EPS = (0.1, 0.2, 0.3, 0.5)
LOADING = ("tokenizer", *stream.LOADING)


@reads(sequence_length=Maybe(COUNT), max_sequences=Maybe(COUNT), batch_size=COUNT, min_queries=COUNT)
def analyze(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    truncate: bool = False,
    pad_token: int | None = None,
    eps: Sequence[float] = EPS,
    radii: Sequence[float] = RADII,
    min_queries: int = 8,
    measures: str | Measure | Sequence[str | Measure] = "default",
    attention: str | None = "statistics",
    batch_size: int = 8,
    blocks: Sequence[torch.nn.Module] | None = None,
    dtype: str | torch.dtype | None = None,
    part: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool | Callable[[int, int], None] = False,
    memory: int | str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    controls: str | Sequence[str] = (),
    rng: int | np.random.Generator = 0,
) -> xarray.Dataset:
    """How the tokens of a trained model synchronize, into how many clusters, and where attention sinks form.

    Layers are measured as their blocks end and then forgotten, batch after batch, so that a corpus needs the memory of
    two layers of one batch. All statistics are float32 or better whatever the dtype of the model.

    Args:
        model: A loaded ``transformers`` model, a folder, or a name, see `kd.checkpoints.load`; or
            any torch module that is a stack of blocks, whose attention is seen where it calls that of torch
            (``scaled_dot_product_attention``, ``nn.MultiheadAttention``) or of ``kd.nn``.
        inputs: Text, a ``pathlib.Path``, or token ids, see `kd.checkpoints.prepare`; for a module
            of one's own also a floating array (sequences, T, d), which its forward is given alone. For a vision model
            pixels, a floating array (n, channels, height, width), or ``pathlib.Path`` of image files or a folder of
            them, which go through the model's own processor; a sequence is then a picture, a token a patch (or a
            class token).
        tokenizer: Instead of the checkpoint's own; for pictures an image processor.
        sequence_length: Cut text into consecutive sequences of this many tokens. Sink rates fall as sequences get
            longer: compare them at one length only (published ones use 64).
        max_sequences: Keep only the first ones.
        truncate: Cut what is longer than the model's context, which otherwise is an error.
        pad_token: Id that is padding wherever it stands at either end of a row of ids.
        eps: Thresholds of the sink rate.
        radii: Chords |u_i - u_j| between directions u = x/|x| at which clusters are counted.
        min_queries: A key needs that many queries to be a strongest key.
        measures: ``"default"``; ``"all"``; or names, those below or of the costlier ones that the default leaves out:
            of states ``persistence``, ``merge_tree``, ``spectrum``, ``participation_ratio``, ``massive_activation``,
            ``cka`` and its ``cka_null``, ``procrustes``, ``transport`` (sliced W2 between layers) and
            ``transport_exact`` (up to 512 tokens), ``intrinsic_dimension``, and in a further pass that measures the
            corpus ``mean_cosine``, ``order_parameter`` and ``effective_rank`` with ``_centred`` or ``_standardised``
            after their names; of attention ``head_distance``. Also `Measure` objects of one's own, such as
            ``["default", Measure(...)]``.
        attention: How much is looked at, said in ``meta["attention_tier"]``. ``"statistics"`` (default): exact sums
            over all weights in memory linear in T, on the CPU at the cost of attention itself; ``"sink"``: on a GPU the
            first and the most heard keys only, where 8k tokens shall cost little, and the rest NaN; ``"full"``: also
            the maps of one block at a time, so that ``head_diversity`` is of all rows; ``"auto"``: full where these
            take at most 256 MB, else statistics; ``"eager"``: what the model returns itself; None: states only.
        batch_size: Sequences per forward pass.
        blocks: The blocks in order, when the search cannot find them: by the configuration's number of layers, in a
            module of one's own as its one row of modules of one class.
        dtype: Of the weights of a model that is loaded here, such as ``"float32"``; None keeps the checkpoint's.
        part: Which part of a composed model: ``"encoder"``, ``"decoder"`` or the path of a submodule, such as
            ``"language_model"``.
        device: Where a model that is loaded here runs, such as ``"cuda"``, or ``"auto"`` for several GPUs; a loaded
            model stays where it is.
        trust_remote_code: Only True runs Python files of a checkpoint.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``; block by
            block it counts sequences times blocks.
        memory: What the process may use, such as ``"24GB"`` or a number of bytes (with ``device="cuda"``: what of the
            GPU). A model of a folder that needs more is read and run block by block, from its safetensors, with all
            sequences through one block before the next; the numbers are the same. None (default): all of it is loaded.
        checkpoint: ``.npz`` file in which the analysis is kept after every block, all sequences through one block
            before the next; the same call goes on from there, bit for bit. None (default): no file.
        controls: What is analysed beside, along a first dimension ``control`` whose first entry is ``"as given"``:
            ``"shuffled"``, ``"random"`` and ``"repeated"`` tokens, ``"random_weights"`` of the same configuration,
            ``"with_bos"`` and ``"without_bos"``. What the first position itself does is in ``tokens``.
        rng: Seed or generator of the controls.

    Returns:
        Dataset with dimensions ``layer`` (0 = embedding, i = residual stream after block i, before any final norm),
        ``block`` (1..L), ``head``, ``sequence``, ``eps``, ``radius``, ``tokens`` (all, without_first), ``quarter`` (of
        the sequence) and ``distance`` (lower ends of bins, in tokens). Each variable says in words what it is.

        Over (sequence, block, head): ``importance_first`` = alpha of the first token, divided by the queries that can
        see it, ``published_importance_first`` with the divisor of full attention, ``even_importance_first`` = what even
        attention within the same reach would give it, ``first_token_score``, ``entropy``,
        ``strongest_key`` (-1 where none) and its ``strongest_importance``, ``self_weight``, ``mean_distance``,
        ``learned_sink``, see ``attention_statistics``; ``first_by_quarter`` and ``distance_profile`` likewise; over
        (sequence, block) ``head_diversity``; over (block, head, eps):
        ``sink_rate`` in per cent of sequences, which falls as sequences get longer: a warning tells where lengths
        differ. Blocks of a hybrid without attention are NaN. Over (sequence, layer, tokens): ``mean_cosine``,
        ``order_parameter``, ``residual``, ``effective_rank``, ``matrix_entropy``, ``stable_rank``, ``step`` (NaN at the
        embedding), ``plateau_clusters`` and ``plateau_ratio``; over (sequence, layer): ``norm_ratio`` = |x_first| over
        the median; over (sequence, layer, tokens, radius): ``clusters`` (connected components) and
        ``effective_clusters``. NaN (-1 for counts) where a sequence of one token leaves nothing. ``length`` holds the
        tokens of each sequence; ``attrs["meta"]`` is JSON: ``json.loads(ds.attrs["meta"])``.

    Raises:
        ValueError: Bad arguments or inputs, before the model runs; a budget that is too small, with the least that
            would do; a ``checkpoint`` of another analysis.
        UnsupportedModel: If the attention cannot be recorded faithfully, or the blocks cannot be run one by one.

    After Ctrl-C the Dataset holds the sequences that are finished, and ``meta["stopped"]`` is ``"interrupted"``; block
    by block the layers that all sequences have passed. Where a block has or makes NaN it holds the layers before:
    ``meta["stopped"]`` says which and why, ``meta["blocks_done"]`` how many.
    """
    asked = {name: value for name, value in locals().items() if name not in ("model", "inputs", "controls", "rng")}
    if named := checked(controls):
        return _with_controls(model, inputs, asked, named, rng)
    wanted = table.chosen(measures, attention is not None)
    eps_values, radius_values = increasing("eps", eps, 1.0), increasing("radii", radii, 2.0)
    if attention == "weights":
        raise ValueError("attention='weights' is for record(); analyze forgets maps block by block: attention='full'")
    cutting, loading = ({name: asked[name] for name in names} for names in (CUTTING, LOADING))
    if memory is not None:
        model, inputs = placed(model, inputs, memory, batch_size=batch_size, cutting=cutting, **loading)
        cutting, loading = {}, {"trust_remote_code": trust_remote_code}
    run = Passes.of(
        model, inputs, attention=attention, batch_size=batch_size, min_queries=min_queries, blocks=blocks,
        progress=progress, **loading, **cutting,
    )  # fmt: skip
    file = None
    if checkpoint is not None:
        kept = {"radii": radius_values.tolist(), "measures": [measure.mark() for measure in wanted]}
        file = RunFile(checkpoint, 0.0, by_block.identity(run, kept))
    lengths = run.inputs.lengths
    if attention is not None and len(set(lengths.tolist())) > 1:
        warnings.warn(
            f"sequences of {lengths.min()} to {lengths.max()} tokens share one sink rate, which falls with the length; "
            "pass sequence_length= to compare it with others",
            UserWarning,
            stacklevel=2,
        )
    moments = Moments.over(run) if any(measure.centred for measure in wanted) else None
    walk = by_block.walk(run, lambda: table.Measuring(wanted, radius_values, moments), file)
    return _measured(run, walk, wanted, eps_values, radius_values)


def _measured(
    run: Passes,
    walk: by_block.InTurn | by_block.ByBlock,
    wanted: Sequence[Measure],
    eps: np.ndarray,
    radii: np.ndarray,
) -> xarray.Dataset:
    """What a walk finds; where it ends early, what is finished."""
    arrays: dict[str, np.ndarray] = {}
    number = len(run.inputs)
    finished = np.zeros(number, bool)
    with Interrupts() as interrupts:
        for members, found in walk.go(lambda: interrupts.reason is not None):
            for name, values in found.items():
                target = arrays.setdefault(name, np.empty((number, *values.shape[1:]), dtype=values.dtype))
                _check_alike(name, target, values)
                target[members] = values
            finished[members] = True
    if not finished.any():
        raise Terminated if interrupts.terminated else KeyboardInterrupt
    meta = describe(run) | {"min_queries": run.min_queries, "distance": "chord"}
    if walk.reason:
        meta |= {"stopped": walk.reason, "sequences": int(finished.sum())}
    by_blocks = isinstance(walk, by_block.ByBlock)
    if by_blocks or walk.done < run.expected:
        meta |= {"blocks_done": walk.done} | ({"block_by_block": True} if by_blocks else {})
        if walk.reason:
            logger.warning("stopped after block %d of %d: %s", walk.done, run.expected, walk.reason)
    if not finished.all():
        logger.warning("interrupted after %d of %d sequences; the result holds those", finished.sum(), number)
        arrays = {name: values[finished] for name, values in arrays.items()}
    dataset = labelled.analysis(wanted, arrays, run.inputs.lengths[finished], eps, radii, meta)
    dataset = dataset.assign_coords(sequence=np.flatnonzero(finished))  # of a part those that it holds
    if interrupts.terminated:
        raise Terminated(result=dataset)
    return dataset


def _check_alike(name: str, target: np.ndarray, values: np.ndarray) -> None:
    """A measure of somebody's own may answer by the number of tokens, which another batch has not."""
    if target.shape[1:] != values.shape[1:]:
        raise ValueError(
            f"measures: {name} has shape {values.shape[1:]} in one sequence and {target.shape[1:]} in another; its "
            "further dimensions must be of one size whatever the sequence, or pass sequence_length="
        )


def _with_controls(
    model: Any, inputs: Any, asked: dict[str, Any], named: tuple[str, ...], rng: int | np.random.Generator
) -> xarray.Dataset:
    """The analysis as asked for, and under controls: all of them of one model in memory."""
    for name in ("memory", "checkpoint"):
        if asked[name] is not None:
            raise ValueError(f"controls are analyses of one model in memory; pass them without {name}=")
    cutting, loading = ({name: asked.pop(name) for name in names} for names in (CUTTING, LOADING))
    found = load(model, **loading)
    options = cutting | {"blocks": asked["blocks"]}
    return analyzed(lambda model, inputs: analyze(model, inputs, **asked), found, inputs, named, rng, options)


def increasing(name: str, values: Sequence[float], largest: float) -> np.ndarray:
    """Thresholds or radii in rising order, each once.

    Raises:
        ValueError: None, or one that is not in (0, largest].
    """
    array = np.asarray(values, dtype=float).reshape(-1)
    if not array.size or not np.all(np.isfinite(array)) or np.any(array <= 0) or np.any(array > largest):
        raise ValueError(f"{name} must be numbers above 0 and at most {largest:g}, received {list(values)}")
    return np.unique(array)
