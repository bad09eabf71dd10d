"""Sweeps: a function over the product of parameters and seeds, in parallel, as a labelled Dataset."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import COUNT, COUNT_OR_ZERO, Called, Is, Maybe, reads
from krause_dynamics._progress import ProgressBar
from krause_dynamics._version import __version__
from krause_dynamics.runs import interrupting
from krause_dynamics.runs.arguments import check_callables
from krause_dynamics.runs.fingerprints import marks
from krause_dynamics.runs.resuming import FUNCTIONS
from krause_dynamics.sweeps.evaluation import evaluate_all, workers_of
from krause_dynamics.sweeps.product import Product, is_label
from krause_dynamics.sweeps.store import Store

if TYPE_CHECKING:
    import xarray


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in a repr: another one in every process


@reads(
    function=Called(),
    parameters=Is(Mapping, "{'beta': [1.0, 2.0]}"),
    seeds=COUNT,
    rng=Is((int, np.integer, np.random.SeedSequence), "0"),
    workers=Maybe(COUNT_OR_ZERO),
)
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
        path: A file that keeps finished points, so that a killed sweep continues; one of another sweep is refused. It
            is netCDF where the path ends in ``.nc`` (in the end the Dataset that is returned), else ``.npz``.
        progress: ``True`` draws a bar with the time left; or a function ``progress(done, total)``.

    Returns:
        ``Dataset`` with dimensions (*parameters, seed, ...); a single unnamed result is called ``value``.

    Raises:
        TypeError: With ``path``, a function or value whose content cannot be read to tell this sweep from another.
        ValueError: No parameters or values, ``seeds`` below 1, ``path`` of another sweep (other code, constants,
            closures, defaults or data; the message says which), or in no folder that can be written to.
        RuntimeError: The function failed, or returned other names or shapes than before; the message names the point,
            finished points stay in ``path``. After Ctrl-C (``KeyboardInterrupt``) and SIGTERM (``SystemExit`` 143) they
            stay there as well.

    Examples:
        >>> import krause_dynamics as kd
        >>> def order(beta, rng):
        ...     x0 = kd.Sphere().sample(16, 3, rng)
        ...     run = kd.simulate(kd.Dynamics(kd.softmax(beta), kd.Sphere()), x0, 2.0, save_at=[])
        ...     return kd.observables.order_parameter(run.final)
        >>> kd.sweep(order, {"beta": [0.5, 4.0]}, seeds=3, workers=0).value.dims
        ('beta', 'seed')
    """
    check_callables(progress=progress)
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
        raise TypeError(f"executor must be one of concurrent.futures, or client.get_executor(), got {executor!r}")
    product = Product(parameters, seeds)
    if not isinstance(rng, np.random.SeedSequence):
        COUNT_OR_ZERO.read("rng", rng)
    root = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(rng)
    children = np.random.SeedSequence(root.entropy, spawn_key=root.spawn_key).spawn(seeds)
    attributes = _described(function, product, root, marked=path is not None)
    store, points = Store(path, product, attributes), product.points
    report = ProgressBar("sweep") if progress is True else progress or None
    missing = [index for index in range(len(points)) if index not in store.results]

    def keep(index: int, result: dict[str, np.ndarray]) -> None:
        store.add(index, result)
        if report is not None:
            report(len(store.results), len(points))

    try:
        with interrupting.raising(), workers_of(executor, workers, len(missing)) as pool:
            evaluate_all(pool, function, points, children, missing, keep)
    finally:  # a failure, SIGTERM or Ctrl-C keeps what there is; a second one waits until it is written
        with interrupting.Interrupts():
            store.write()
    return product.dataset(store.results, attributes)


def _described(
    function: Callable[..., Any], product: Product, root: np.random.SeedSequence, *, marked: bool
) -> dict[str, str]:
    """Attributes of the Dataset; ``sweep`` is what another sweep does not share, for a file with marks of its code."""
    others = {name: [v for v in values if not is_label(v)] for name, values in product.parameters.items()}
    identity = {
        "function": name_of(function),
        "parameters": product.labels,
        "seeds": int(product.seeds),
        "rng": [str(root.entropy), list(root.spawn_key)],
    }
    try:
        held = {name: values for name, values in others.items() if values}
        identity[FUNCTIONS] = marks("function", function) | marks("parameters", held)
    except TypeError:
        if marked:
            raise
    return {
        "function": name_of(function),
        "rng": str(root.entropy),
        "version": __version__,
        "sweep": json.dumps(identity),
    }


def name_of(function: Callable[..., Any]) -> str:
    """Module and name of a function; for partial functions what they hold as well."""
    inner = getattr(function, "func", None)
    if inner is not None:
        return _ADDRESS.sub("", f"{name_of(inner)}{function.args}{function.keywords}")  # type: ignore[attr-defined]
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
