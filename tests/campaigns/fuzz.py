"""Every public function with odd arguments: an answer, or an error of ours that names it; never a hang."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import re
import resource
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"  # names of models are looked up nowhere

from tests.campaigns.frame import Campaign, main
from tests.keywords import public
from tests.keywords.row import ROWS

MEMORY = 6 << 30  # bytes beyond which a trial may not allocate
# Functions whose arguments are code to run, or which only pass on what another one checks.
LEFT_OUT = ("kd.theory_table", "kd.demo")
NUMBERS = (None, True, False, 0, 1, -1, 2, 3, 7, 10**9, -(10**18), 2**70, 0.0, -0.0, 0.5, -2.5, 1e-300, 1e300, 1 + 2j)
NO_NUMBERS = (np.nan, np.inf, -np.inf, "", "x", "auto", "\x1b[31m", b"x", object(), print, int, range(3), slice(2))
LISTS = (
    [],
    [0.0],
    [1, 2, 3],
    ["a", "b"],
    [None],
    [[1.0], [2.0, 3.0]],
    [10**6] * 3,
    (),
    {},
    {"a": 1},
    {"type": "No"},
    set(),
)
FUNCTIONS = (lambda: None, lambda *a, **k: None, lambda *a: np.nan)
ARRAYS = (
    *(np.zeros(shape) for shape in (0, (0, 2), 3, (2, 3, 1))), np.ones((4, 2)), np.eye(3), np.array(3.0),
    np.full((4, 1), np.nan), np.array([[0.0], [np.inf]]), np.arange(4), np.array([True, False, True]), np.array(["a"]),
    np.array([None, 1.0], dtype=object), np.float32(2.0), np.arange(4, dtype=">f8"), np.datetime64("2020-01-01"),
    np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]),
)  # fmt: skip
ODD: tuple[Any, ...] = (*NUMBERS, *NO_NUMBERS, *LISTS, *FUNCTIONS, *ARRAYS)


@functools.cache
def functions() -> dict[str, Any]:
    """What is called, by path."""
    import tests.keywords.test_every_keyword  # noqa: F401  (imports all tables)

    found = public.callables()
    return {path: thing for path, thing in sorted(found.items()) if not path.startswith(LEFT_OUT)}


@functools.cache
def values(path: str) -> dict[str, list[Any]]:
    """Arguments that the rows of the keyword tables give, by parameter."""
    found: dict[str, list[Any]] = {}
    for row in ROWS:
        if row.path == path:
            found.setdefault(row.parameter, []).extend([row.first, row.second])
    return found


def kind(rng: np.random.Generator) -> str:
    """Which room the function is of: the public name without its last part."""
    return _path(rng).rpartition(".")[0]


def _path(rng: np.random.Generator) -> str:
    return str(rng.choice(list(functions())))


def arguments(path: str, rng: np.random.Generator) -> tuple[list[Any], dict[str, Any]]:
    """Sensible values, of which one or two (sometimes all) are replaced by odd ones."""
    given: dict[str, Any] = {}
    known, positional = values(path), []
    parameters = list(public.signature(functions()[path]).parameters.values())
    usual = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"]
    replaced = rng.choice(len(usual), size=min(len(usual), int(rng.integers(1, 3))), replace=False) if usual else ()
    all_odd = rng.random() < 0.1
    for place, parameter in enumerate(usual):
        options = known.get(parameter.name)
        if all_odd or place in replaced or not options:
            if parameter.default is not inspect.Parameter.empty and place not in replaced:
                continue
            given[parameter.name] = ODD[int(rng.integers(0, len(ODD)))]
        elif parameter.default is inspect.Parameter.empty or rng.random() < 0.3:
            given[parameter.name] = options[int(rng.integers(0, len(options)))]
    for parameter in usual:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in given:
            positional.append(given.pop(parameter.name))
    return positional, given


def judged(error: BaseException, names: list[str]) -> str:
    """Whether an error is one of ours, about an argument."""
    frames = traceback.extract_tb(error.__traceback__)
    if "keywords" in Path(frames[-1].filename).parts:  # the caller's own function failed
        return "refused"
    ours = "krause_dynamics" in frames[-1].filename and "site-packages" not in frames[-1].filename
    words = set(re.findall(r"\w+", str(error)))
    if isinstance(error, ValueError | TypeError | FileNotFoundError | ModuleNotFoundError) and (
        ours or words & set(names)
    ):
        return "refused"
    if "the function failed at" in str(error):  # the caller's own function, and where
        return "refused"
    own = type(error).__module__.startswith("krause_dynamics")
    return "refused" if own else "unclear"


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """One call."""
    import matplotlib.pyplot as plt

    path = _path(rng)
    positional, given = arguments(path, rng)
    line: dict[str, Any] = {"kind": path.rpartition(".")[0], "function": path}
    os.chdir(folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functions()[path](*copy.copy(positional), **given)
        outcome = {"outcome": "returned"}
    except Exception as error:
        names = [*given, *path.split(".")]
        told = f"{type(error).__name__}: {error}"[:200]
        outcome = {"outcome": judged(error, names), "told": told}
        if outcome["outcome"] == "unclear":
            outcome["given"] = ", ".join(f"{name}={value!r:.60}" for name, value in given.items())[:300]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        os.chdir("/")
        plt.close("all")
    return line | outcome


def case(rng: np.random.Generator) -> str:
    """The call of a trial."""
    path = _path(rng)
    positional, given = arguments(path, rng)
    shown = [f"{value!r:.60}" for value in positional] + [f"{name}={value!r:.60}" for name, value in given.items()]
    return f"{path}({', '.join(shown)})"[:400]


CAMPAIGN = Campaign("fuzz", trial, kind, case=case)

if __name__ == "__main__":
    main(CAMPAIGN)
