"""Keywords that a function or value does not have: the error says what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

# What others call an argument, and what it is here: the first whose keyword the function has. ``{}`` is what was given.
_RADIUS = ("radius={}", "neighbourhood=kd.Within({})")
_RNG = ("rng={}",)
_T_END = ("t_end={}",)
_GRAPH = ("graph={}", "neighbourhood=kd.Graph({})")
MEANT: dict[str, tuple[str, ...]] = {
    "radius": _RADIUS,
    "epsilon": _RADIUS,
    "eps": _RADIUS,
    "cutoff": _RADIUS,
    "confidence": _RADIUS,
    "window": ("size={}", "neighbourhood=kd.Window({})"),
    "top_k": ("k={}", "neighbourhood=kd.TopK({})"),
    "k": ("top_k={}", "neighbourhood=kd.TopK({})"),
    "causal": ("neighbourhood=kd.Causal()",),
    "adjacency": _GRAPH,
    "network": _GRAPH,
    "graph": _GRAPH,
    "bandwidth": ("sigma={}",),
    "beta": ("sigma={}**-0.5",),
    "sigma": ("beta={}**-2",),
    "temperature": ("beta=1 / {}", "sigma={}**0.5"),
    "seed": _RNG,
    "random_state": _RNG,
    "T": _T_END,
    "t_max": _T_END,
    "t_final": _T_END,
    "space": ("dynamics=kd.Dynamics(rule, {})",),
    "n_jobs": ("workers={}",),
}


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that is meant by another one: what others call so, or nearly the same letters; None: no idea."""
    called = (form.partition("=")[0] for form in MEANT.get(name, ()))
    return next((key for key in called if key in known), None) or next(
        iter(difflib.get_close_matches(name, known, n=1)), None
    )


def unknown(owner: str, given: Mapping[str, Any], known: Collection[str]) -> TypeError:
    """The error for the first keyword that is not among the known ones.

    Args:
        owner: Name of the function or class.
        given: All keywords of the call, at least one of them unknown.
        known: Those that there are.
    """
    name, value = next((name, value) for name, value in given.items() if name not in known)
    advice = next((form for form in MEANT.get(name, ()) if form.partition("=")[0] in known), None)
    near = nearest(name, known)
    if advice is not None:
        way = f"write {advice.format(_written(name, value))}"
    elif near is not None:
        way = f"did you mean {near!r}?"
    else:
        way = f"it has {', '.join(known)}" if known else "it has none"
    return TypeError(f"{owner} has no argument {name!r}; {way}")


def _written(name: str, value: Any) -> str:
    """A number or a word as it was given; for anything else its name stands."""
    return repr(value) if isinstance(value, int | float | str) else name
