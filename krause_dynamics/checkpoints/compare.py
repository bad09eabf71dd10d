"""Analyses side by side on relative depth: models, texts or training steps, with their differences and intervals."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import Real, Whole, reads
from krause_dynamics._files import attributes
from krause_dynamics.analysis import intervals
from krause_dynamics.checkpoints.analyze import analyze
from krause_dynamics.checkpoints.load import load
from krause_dynamics.checkpoints.relative_depth import on_relative_depth
from krause_dynamics.checkpoints.sources import ADAPTERS
from krause_dynamics.runs.interrupting import raising

if TYPE_CHECKING:
    import xarray

BOUNDS = ("low", "high")


@reads(level=Real(0, 1, ends="()"), draws=Whole(1))
def compare(
    cases: Mapping[Any, Any] | str | os.PathLike[str],
    inputs: Any = None,
    *,
    model: Any = None,
    reference: Any = None,
    level: float = 0.95,
    draws: int = 1000,
    rng: int | np.random.Generator = 0,
    **options: Any,
) -> xarray.Dataset:
    """Compare models on one text, texts in one model, training steps, or analyses that are there already.

    Layers are compared at equal relative depth (0 = embedding, 1 = after the last block; linear in between), blocks at
    the middle of theirs, attention by its mean over heads, so that models of unlike depth and number of heads compare.

    Args:
        cases: By name: Datasets of `analyze`; or, with ``inputs``, models; or, with ``model``, texts. Or a folder
            of checkpoints of one training, as trainers write them (``checkpoint-500``, ``step1000``): its subfolders
            with a ``config.json``, by the last number in their names.
        inputs: What all models are shown, see `kd.checkpoints.prepare`.
        model: The model that is shown all texts.
        reference: The case that differences are taken from (default: the first).
        level: Of the intervals of differences.
        draws: Resamples of the bootstrap over sequences.
        rng: Seed or generator of the resampling.
        **options: For `analyze`, such as ``sequence_length=64``, ``memory="24GB"`` or ``progress=True``.

    Returns:
        Dataset with the dimensions ``case``, ``sequence``, ``depth`` (of layers) and ``block_depth`` beside those of
        `analyze`, NaN beyond the sequences of a case: all its variables over layers, and over blocks their means
        over heads; ``sink_rate`` is the share of heads in a sequence (per cent). For each, ``NAME_difference``
        (case, ...) is the mean over sequences minus that of the reference, and ``NAME_interval`` (bound, case, ...) its
        interval, by t below 8 sequences and by resampling them from there on (see `interval`): of the differences
        of sequences where both cases were shown the same ones (``meta["paired"]``). An interval is of one place; of
        many places, some leave out 0 by chance.

    Raises:
        ValueError: Fewer than two cases, a reference of another name, no inputs, or a folder without checkpoints.

    Unlike lengths of sequences between cases give a warning: sink rates fall with the length.
    """
    named = _steps(cases) if isinstance(cases, str | os.PathLike) else dict(cases)
    if len(named) < 2:
        raise ValueError(f"cases must be at least two, received {list(named)}")
    first = next(iter(named)) if reference is None else reference
    if first not in named:
        raise ValueError(f"reference must be one of {list(named)}, received {reference!r}")
    if options.get("controls") or any("control" in getattr(one, "dims", ()) for one in named.values()):
        raise ValueError("cases must be without controls; pass analysis.sel(control='as given'), or controls as cases")
    if options.get("checkpoint") is not None:
        raise ValueError("checkpoint= is of one analysis; pass Datasets of kd.analyze(..., checkpoint=) as cases")
    with raising():  # a shortened analysis is none
        analyses = _analyses(named, inputs, model, options)
    _check_lengths(analyses)
    return _joined(analyses, first, level, draws, np.random.default_rng(rng))


def _steps(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """Checkpoints of a training by their step, in order."""
    if not Path(folder).is_dir():
        raise ValueError(f"cases must be a mapping, or a folder of checkpoints, received {os.fspath(folder)!r}")
    found: dict[int, Path] = {}
    for path in Path(folder).iterdir():
        numbers = re.findall(r"\d+", path.name)
        if numbers and any((path / name).is_file() for name in ("config.json", ADAPTERS)):
            before = found.setdefault(int(numbers[-1]), path)
            if before != path:
                raise ValueError(f"cases: {path.name} and {before.name} are of one step; move one away")
    if len(found) < 2:
        raise ValueError(
            f"cases: {folder} holds {len(found)} checkpoints with a step in their name (such as checkpoint-500, with a "
            "config.json); pass the folder above them, or a mapping of names to folders"
        )
    return dict(sorted(found.items()))


def _analyses(named: dict[Any, Any], inputs: Any, model: Any, options: dict[str, Any]) -> dict[Any, xarray.Dataset]:
    import xarray

    if model is not None and inputs is not None:
        raise ValueError("inputs= is for models as cases, model= for texts as cases; pass one of them")
    if model is not None:
        if "memory" not in options:
            loading = ("tokenizer", "dtype", "device", "part", "trust_remote_code")
            model = load(model, **{name: options.pop(name) for name in loading if name in options})
        return {name: analyze(model, text, **options) for name, text in named.items()}
    if inputs is not None:
        return {name: analyze(one, inputs, **options) for name, one in named.items()}
    for name, one in named.items():
        if not isinstance(one, xarray.Dataset) or "layer" not in one.dims:
            raise ValueError(
                f"cases: {name!r} is a {type(one).__name__}; pass inputs= where cases are models, model= where they "
                "are texts, or Datasets of kd.analyze"
            )
    if options:
        raise ValueError(f"cases are analysed already, so that {', '.join(sorted(options))} would have no effect")
    return named


def _check_lengths(analyses: dict[Any, xarray.Dataset]) -> None:
    lengths = {name: sorted(set(one["length"].values.tolist())) for name, one in analyses.items() if "length" in one}
    if len({str(found) for found in lengths.values()}) > 1:
        told = ", ".join(f"{name}: {found[0]} to {found[-1]}" for name, found in lengths.items())
        warnings.warn(
            f"cases have sequences of unlike lengths ({told} tokens), on which sink rates and clusters depend; pass "
            "sequence_length=",
            UserWarning,
            stacklevel=4,
        )


def _joined(
    analyses: dict[Any, xarray.Dataset], reference: Any, level: float, draws: int, rng: np.random.Generator
) -> xarray.Dataset:
    import xarray

    metas = {name: json.loads(one.attrs["meta"]) for name, one in analyses.items()}
    deepest = max(int(meta["layers"]) for meta in metas.values())
    depths = {"depth": np.linspace(0, 1, deepest + 1), "block_depth": (np.arange(deepest) + 0.5) / deepest}
    placed = {name: on_relative_depth(one, int(metas[name]["layers"]), depths) for name, one in analyses.items()}
    common = [str(key) for key in placed[reference] if _is_common(str(key), list(placed.values()))]
    # Sequences without numbers could not be joined where cases have unlike many.
    counted = [one[common].assign_coords(sequence=np.arange(one.sizes["sequence"])) for one in placed.values()]
    whole = xarray.concat(counted, dim="case", join="outer", combine_attrs="override")
    whole = whole.drop_vars("sequence").assign_coords(case=list(placed))
    marks = {name: meta.get("inputs_fingerprint") for name, meta in metas.items()}
    paired = {name: mark is not None and mark == marks[reference] for name, mark in marks.items()}
    for key in [key for key in common if key != "length"]:
        ours = {name: one[key].transpose("sequence", ...) for name, one in placed.items()}
        whole = whole.assign(_differences(key, ours, reference, paired, level, draws, rng))
    told: dict[str, Any] = {"cases": {str(name): meta for name, meta in metas.items()}, "reference": str(reference)}
    told |= {"paired": {str(name): value for name, value in paired.items()}, "level": level, "draws": draws}
    told["left_out"] = sorted({str(key) for one in analyses.values() for key in one} - set(common))
    return whole.drop_attrs(deep=False).assign_attrs(attributes(told))


def _is_common(key: str, placed: list[xarray.Dataset]) -> bool:
    """Whether all cases have a variable over the same further dimensions."""
    if not all(key in one for one in placed):
        return False
    further = [{dim: n for dim, n in one[key].sizes.items() if dim != "sequence"} for one in placed]
    return all(sizes == further[0] for sizes in further)


def _differences(
    key: str,
    ours: dict[Any, Any],
    reference: Any,
    paired: dict[Any, bool],
    level: float,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    base = ours[reference].values
    dims = ours[reference].dims[1:]
    mean, bounds = [], []
    for name, values in ours.items():
        same, both = name == reference, values.values
        mean.append(intervals.apart(both, base, paired=paired[name]))
        bounds.append(
            np.zeros((2, *mean[-1].shape))
            if same
            else intervals.difference(both, base, paired=paired[name], level=level, draws=draws, rng=rng)
        )
    words = ours[reference].attrs.get("long_name", key)
    about = {"long_name": f"{words}: interval of that difference"}
    return {
        f"{key}_difference": (("case", *dims), np.stack(mean), {"long_name": f"{words}: difference from {reference}"}),
        f"{key}_interval": (("bound", "case", *dims), np.stack(bounds, axis=1), about),
        "bound": list(BOUNDS),
    }
