"""Sweeps: a function over the product of parameters and seeds, in parallel, as a labelled Dataset."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics._files import read_npz, write_npz
from krause_dynamics.runs import interrupting
from krause_dynamics.runs.progress import ProgressBar

if TYPE_CHECKING:
    import xarray

WRITE_EVERY = 10.0  # seconds between two writings of the file


def sweep(
    function: Callable[..., Any],
    parameters: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 1,
    rng: int | np.random.SeedSequence = 0,
    executor: Executor | None = None,
    workers: int | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[float, float], None] = False,
) -> xarray.Dataset:
    """Evaluate ``function(**point, rng=generator)`` for every combination of parameters and every seed.

    Args:
        function: Returns a number, an array, or a dictionary of such by name (one shape per name). To reach other
            processes it must be importable, or, on Linux, defined before the call (also in a notebook).
        parameters: Values by argument name; each becomes a dimension of the result.
        seeds: Number of repetitions, the dimension ``seed``. Seed k starts from the same generator state at every
            point (common random numbers: curves over a parameter are smooth, points of one seed are not independent).
        rng: Seed of all; children come from ``SeedSequence.spawn``, so the result depends on no order and no executor.
        executor: Any ``concurrent.futures`` executor, for a Dask cluster ``client.get_executor()``; it stays
            open. By default processes on this machine.
        workers: Number of processes of the default executor; by default one per usable core. 0 runs here, in a loop.
        path: A file that keeps finished points, so that a killed sweep continues; one of another sweep is refused.
        progress: ``True`` draws a bar with the time left; or a function ``progress(done, total)``.

    Returns:
        ``Dataset`` with dimensions (*parameters, seed, ...); a single unnamed result is called ``value``.

    Raises:
        ValueError: No parameters or values, ``seeds`` below 1, ``path`` of another sweep.
        RuntimeError: The function failed; the message names the point, finished points stay in ``path``.

    Example:
        >>> import krause_dynamics as kd
        >>> def order(beta, rng):
        ...     x0 = kd.Sphere().sample(16, 3, rng)
        ...     run = kd.simulate(kd.Dynamics(kd.softmax(beta), kd.Sphere()), x0, 2.0, save_at=[])
        ...     return kd.observables.order_parameter(run.final)
        >>> kd.sweep(order, {"beta": [0.5, 4.0]}, seeds=3, workers=0).value.dims
        ('beta', 'seed')
    """
    if not callable(function):
        raise TypeError(f"function must be callable as function(**point, rng=generator), got {function!r}")
    points = _points(parameters, seeds)
    root = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(rng)
    children = np.random.SeedSequence(root.entropy, spawn_key=root.spawn_key).spawn(seeds)
    store = _Store(path, _identity(function, parameters, seeds, root))
    report = ProgressBar("sweep") if progress is True else progress or None
    missing = [index for index in range(len(points)) if index not in store.results]
    with _open(executor, workers, len(missing)) as pool:
        try:
            for index, result in _evaluate_all(pool, function, points, children, missing):
                store.add(index, result)
                if report is not None:
                    report(len(store.results), len(points))
        finally:  # a failure, a kill or Ctrl-C keeps what there is
            store.write()
    return _dataset(store.results, parameters, seeds, function, root)


def _points(parameters: Mapping[str, Sequence[Any]], seeds: int) -> list[tuple[dict[str, Any], int]]:
    single = [name for name, values in parameters.items() if isinstance(values, str) or not hasattr(values, "__len__")]
    if single:
        raise ValueError(f"parameters must hold a list of values each, got {single[0]}={parameters[single[0]]!r}")
    if not parameters or any(len(values) == 0 for values in parameters.values()):
        raise ValueError(f"parameters must name at least one argument with at least one value each, got {parameters!r}")
    if "seed" in parameters or "rng" in parameters:
        raise ValueError("parameters must not be named 'seed' or 'rng'; use seeds= and rng=")
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 1:
        raise ValueError(f"seeds must be a whole number of at least 1, got {seeds!r}")
    combinations = itertools.product(*parameters.values())
    return [(dict(zip(parameters, values, strict=True)), seed) for values in combinations for seed in range(seeds)]


def evaluate(
    function: Callable[..., Any], point: dict[str, Any], child: np.random.SeedSequence
) -> dict[str, np.ndarray]:
    """One point, as it runs in a worker: results by name as numpy arrays."""
    result = function(**point, rng=np.random.default_rng(child))
    named = result if isinstance(result, Mapping) else {"value": result}
    return {name: np.asarray(to_numpy(x)) for name, x in named.items()}


def _evaluate_all(
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
def _open(executor: Executor | None, workers: int | None, tasks: int) -> Iterator[Executor | None]:
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


class _Store:
    """Finished points by index, and the file that keeps them."""

    def __init__(self, path: str | os.PathLike[str] | None, identity: dict[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        self._identity = json.loads(json.dumps(identity))
        self._last = time.monotonic()
        self.results: dict[int, dict[str, np.ndarray]] = {}
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def add(self, index: int, result: dict[str, np.ndarray]) -> None:
        self.results[index] = result
        if time.monotonic() - self._last > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        if self._path is None or not self.results:
            return
        indices = sorted(self.results)
        names = list(self.results[indices[0]])
        arrays = {f"result_{name}": np.stack([self.results[i][name] for i in indices]) for name in names}
        write_npz(self._path, {"sweep": self._identity}, {"indices": np.asarray(indices), **arrays})
        self._last = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            header, arrays = read_npz(path)
            theirs = header["sweep"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"path must be a file written by a sweep, {path} is not: {error}") from error
        different = sorted(name for name in self._identity if theirs.get(name) != self._identity[name])
        if different:
            raise ValueError(
                f"path {path} belongs to another sweep (different: {', '.join(different)}); "
                "it was left as it is: choose another path, or delete it"
            )
        names = [name.removeprefix("result_") for name in arrays if name != "indices"]
        for row, index in enumerate(arrays["indices"]):
            self.results[int(index)] = {name: arrays[f"result_{name}"][row] for name in names}


def _identity(
    function: Callable[..., Any], parameters: Mapping[str, Sequence[Any]], seeds: int, root: np.random.SeedSequence
) -> dict[str, Any]:
    return {
        "function": name_of(function),
        "parameters": {name: [_label(value) for value in values] for name, values in parameters.items()},
        "seeds": seeds,
        "rng": [str(root.entropy), list(root.spawn_key)],
    }


def name_of(function: Callable[..., Any]) -> str:
    """Module and name of a function; for partial functions what they hold as well."""
    inner = getattr(function, "func", None)
    if inner is not None:
        return f"{name_of(inner)}{function.args}{function.keywords}"  # type: ignore[attr-defined]
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _label(value: Any) -> Any:
    """A coordinate: numbers and strings as they are, everything else by its words."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else repr(value)


def _dataset(
    results: dict[int, dict[str, np.ndarray]],
    parameters: Mapping[str, Sequence[Any]],
    seeds: int,
    function: Callable[..., Any],
    root: np.random.SeedSequence,
) -> xarray.Dataset:
    import xarray

    from krause_dynamics import __version__

    shape = (*(len(values) for values in parameters.values()), seeds)
    variables = {}
    for name, first in results[0].items():
        stacked = np.stack([results[index][name] for index in range(len(results))])
        inner = [f"{name}_{axis}" for axis in range(first.ndim)]
        variables[name] = ([*parameters, "seed", *inner], stacked.reshape(*shape, *first.shape))
    coordinates: dict[str, Any] = {name: [_label(value) for value in values] for name, values in parameters.items()}
    coordinates["seed"] = np.arange(seeds)
    attributes = {"function": name_of(function), "rng": str(root.entropy), "version": __version__}
    return xarray.Dataset(variables, coords=coordinates, attrs=attributes)
