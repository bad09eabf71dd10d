"""Where the points of a sweep are computed: in this process, in others of this machine, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics.runs import interrupting


def evaluate(
    function: Callable[..., Any], point: dict[str, Any], child: np.random.SeedSequence
) -> dict[str, np.ndarray]:
    """One point, as it runs in a worker: results by name as numpy arrays."""
    result = function(**point, rng=np.random.default_rng(child))
    named = result if isinstance(result, Mapping) else {"value": result}
    return {name: np.asarray(to_numpy(x)) for name, x in named.items()}


def evaluate_all(
    pool: Executor | None,
    function: Callable[..., Any],
    points: list[tuple[dict[str, Any], int]],
    children: list[np.random.SeedSequence],
    missing: list[int],
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Results as they come; the first failure is raised with its point."""
    if pool is None:
        for index in missing:
            point, seed = points[index]
            with interrupting.raising():
                result = _named(point, seed, partial(evaluate, function, point, children[seed]))
            yield index, result
        return
    futures: dict[Future[Any], int] = {
        pool.submit(evaluate, function, points[index][0], children[points[index][1]]): index for index in missing
    }
    try:
        for future in as_completed(futures):
            yield futures[future], _named(*points[futures[future]], future.result)
    finally:
        for future in futures:
            future.cancel()


def _named(point: dict[str, Any], seed: int, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        where = ", ".join(f"{name}={value!r}" for name, value in point.items())
        raise RuntimeError(f"the function failed at {where}, seed {seed}: {type(error).__name__}: {error}") from error


@contextmanager
def workers_of(executor: Executor | None, workers: int | None, tasks: int) -> Iterator[Executor | None]:
    """The given executor, processes of our own, or ``None`` for a loop in this process."""
    if executor is not None or workers == 0 or tasks == 0:
        yield executor
        return
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Forked workers know functions defined in a notebook; where fork does not exist they must be importable.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else None
    context = multiprocessing.get_context(method)
    count = min(workers or usable, tasks)
    with warnings.catch_warnings(), ProcessPoolExecutor(count, context, initializer=_prepare_worker) as pool:
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        yield pool


def _prepare_worker() -> None:
    """Workers share the cores, forked ones must not enter the parent's thread pools, and Ctrl-C is the parent's."""
    interrupting.ignore()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
