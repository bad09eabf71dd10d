"""Where the points of a sweep are computed: in this process, in others of this machine, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics.runs import interrupting

WATCH_EVERY = 0.2  # seconds between two looks of a worker at its parent


def evaluate(
    function: Callable[..., Any], point: dict[str, Any], child: np.random.SeedSequence
) -> dict[str, np.ndarray]:
    """One point, as it runs in a worker: results by name as numpy arrays."""
    result = function(**point, rng=np.random.default_rng(child))
    given = result if isinstance(result, Mapping) else {"value": result}
    arrays = {str(name): np.asarray(to_numpy(x)) for name, x in given.items()}
    for name, x in arrays.items():
        if x.dtype.hasobject:
            raise TypeError(f"results must be numbers, text or arrays of them, got {given[name]!r} ({name})")
    return arrays


def evaluate_all(
    pool: Executor | None,
    function: Callable[..., Any],
    points: list[tuple[dict[str, Any], int]],
    children: list[np.random.SeedSequence],
    missing: list[int],
    keep: Callable[[int, dict[str, np.ndarray]], None],
) -> None:
    """Hand results to ``keep(index, result)`` as they come.

    Raises:
        RuntimeError: The first failure, with its point, after the points that were begun have been kept as well.
    """
    if pool is None:
        for index in missing:
            point, seed = points[index]
            _named(point, seed, lambda: keep(index, evaluate(function, point, children[seed])))  # noqa: B023
        return
    futures: dict[Future[Any], int] = {
        pool.submit(evaluate, function, points[index][0], children[points[index][1]]): index for index in missing
    }
    try:
        for future in as_completed(list(futures)):
            index = futures.pop(future)
            try:
                _named(*points[index], lambda: keep(index, future.result()))  # noqa: B023
            except RuntimeError:
                _drain(futures, keep)
                raise
    finally:
        for future in futures:
            future.cancel()


def _drain(futures: dict[Future[Any], int], keep: Callable[[int, dict[str, np.ndarray]], None]) -> None:
    """Keep what was begun: it would be waited for in any case."""
    begun = [future for future in futures if not future.cancel()]
    for future in begun:
        with suppress(Exception):
            keep(futures[future], future.result())


def _named(point: dict[str, Any], seed: int, call: Callable[[], None]) -> None:
    try:
        call()
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
    count, leave = min(workers or usable, tasks), context.Event()
    started = ProcessPoolExecutor(count, context, initializer=_prepare_worker, initargs=(leave,))
    with warnings.catch_warnings(), started as pool:
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        try:
            yield pool
        except (KeyboardInterrupt, SystemExit):  # what the workers are at would be waited for, perhaps for hours
            leave.set()
            raise


def _prepare_worker(leave: Any) -> None:
    """Workers share the cores, forked ones must not enter the parent's thread pools, and Ctrl-C is the parent's."""
    interrupting.ignore()
    threading.Thread(target=_watch, args=(leave,), daemon=True).start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _watch(leave: Any) -> None:
    """End this worker when it is told to, or when the parent is no more: killed, it cannot tell."""
    parent = multiprocessing.parent_process()
    while not leave.wait(WATCH_EVERY) and parent is not None and parent.is_alive():
        pass
    os._exit(1)
