"""Further results of a model on its page: ``krause analyze --report PAGE --beside forecast``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

NAMES = ("forecast", "confidence", "branches", "tracks")
SHARED = ("sequence_length", "max_sequences", "batch_size")
LOADED = ("dtype", "device", "part", "trust_remote_code")
WITHOUT = ("truncate", "pad_token")  # what only the analysis itself takes


def check(names: Sequence[str], page: Path | None, settings: dict[str, Any]) -> None:
    """Refuse before anything is loaded.

    Raises:
        ValueError: An unknown name, no page to put it on, or an option that these results do not take.
    """
    for name in names:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"--beside must be one of {', '.join(NAMES)}, got {name!r}{meant}")
    if names and page is None:
        raise ValueError("--beside needs a page to stand on; add --report PAGE.html")
    if names and (given := [name for name in WITHOUT if settings.get(name)]):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--beside takes whole sequences; leave {options} away")


def loaded(model: str, inputs: Path, settings: dict[str, Any]) -> Any:
    """The model, for what stands beside and for the analysis: read once, whole, within ``--memory`` where it is given.

    As stored unless ``--dtype`` says otherwise; divided over several devices (``--device auto``) in float32 from the
    start, since what was laid out for half precision need not have room for more.

    Raises:
        ValueError: It does not fit whole; blocks that are read one by one are for the analysis alone.
    """
    from krause_dynamics.checkpoints import load
    from krause_dynamics.checkpoints.memory import check_whole

    loading = {name: settings[name] for name in LOADED}
    in_float32 = loading | {"dtype": settings["dtype"] or "float32"}
    if settings["device"] == "auto":
        loading = in_float32
    if settings["memory"] is not None:
        cutting = {name: settings[name] for name in SHARED[:2]}
        try:
            check_whole(
                model, inputs, settings["memory"], batch_size=settings["batch_size"], cutting=cutting, **in_float32
            )
        except ValueError as error:
            raise ValueError(f"{error}; or leave --beside away") from None
    return load(model, **loading)


def results(names: Sequence[str], model: Any, inputs: Path, settings: dict[str, Any], progress: Any) -> list[Any]:
    """What stands beside the analysis, in the order asked for; computed before it, as predictions ought to be.

    Weights are in float32 meanwhile unless the settings say otherwise, since a forecast takes a derivative by
    differences; the analysis is of the weights as they were loaded.
    """
    from contextlib import nullcontext

    from krause_dynamics.checkpoints import confidence, forecast, record, tracks
    from krause_dynamics.checkpoints.precision import in_float32
    from krause_dynamics.models import branch_statistics

    def followed(model: Any, inputs: Any, **options: Any) -> Any:
        run = record(model, inputs, attention=None, **options | {"max_sequences": 1})
        return tracks(run, tokenizer=model.tokenizer)

    calls: dict[str, Callable[..., Any]] = {
        "forecast": forecast, "confidence": confidence, "branches": branch_statistics, "tracks": followed,
    }  # fmt: skip
    shared = {name: settings[name] for name in SHARED}
    with in_float32(model.model) if settings["dtype"] is None else nullcontext():
        return [calls[name](model, inputs, progress=progress, **shared) for name in names]
