"""Which array library the arguments belong to (array API: numpy or torch), and the checks made once at the border."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from array_api_compat import device as device  # other modules take it from here

Array = Any  # jaxtyping's Float[Array, "*batch n d"] then accepts every library
_MET: dict[type, Any] = {np.ndarray: array_namespace(np.empty(0))}  # namespaces by type; others join when first met


def is_torch(x: object) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    return type(x) is not np.ndarray and "torch" in sys.modules and bool(is_torch_array(x))


def namespace(**arrays: Array) -> Any:
    """The array namespace shared by the named arrays (``None`` is skipped).

    Args:
        **arrays: Arrays by the name that an error message should use.

    Returns:
        The array-API namespace (``array_api_compat.numpy`` or ``array_api_compat.torch``).

    Raises:
        TypeError: An argument is no array, or two belong to different libraries, dtypes or devices.
    """
    # The common case first, in a loop of small steps worth ten times the general check.
    first = next(iter(arrays.values()))
    kind, found = type(first), _MET.get(type(first))
    for x in arrays.values() if found is not None else ():
        if not (x is None or x is first) and (
            type(x) is not kind or x.dtype != first.dtype or (kind is not np.ndarray and x.device != first.device)
        ):
            found = None
    if found is None:
        found = _checked_namespace({name: x for name, x in arrays.items() if x is not None})
        _MET[kind] = found
    return found


def _checked_namespace(given: dict[str, Array]) -> Any:
    if not given:
        raise TypeError("positions must be a numpy array or a torch tensor, got None")
    (first_name, first), *others = given.items()
    _check_is_array(first_name, first)
    for name, x in others:
        _check_is_array(name, x)
        if is_torch(x) != is_torch(first):
            raise TypeError(
                f"{first_name} and {name} must come from one array library, got {_kind(first)} and {_kind(x)}; "
                "convert one of them (torch.from_numpy(x), x.numpy())"
            )
        if x.dtype != first.dtype:
            raise TypeError(
                f"{first_name} and {name} must have one dtype, got {first.dtype} and {x.dtype}; convert one of them"
            )
        if device(x) != device(first):
            raise TypeError(
                f"{first_name} and {name} must be on one device, got {device(first)} and {device(x)}; move one of them"
            )
    return array_namespace(first)


def _check_is_array(name: str, x: object) -> None:
    if not (isinstance(x, np.ndarray | np.generic) or is_torch(x)):
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(x).__name__}")


def _kind(x: object) -> str:
    return "torch.Tensor" if is_torch(x) else "numpy.ndarray"


def as_floating(name: str, x: Any) -> Array:
    """``x`` as a floating array: lists and integers become float64, floating arrays are returned as they are."""
    if is_torch(x):
        return x if x.is_floating_point() else x.double()
    array = np.asarray(x)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def like(x: Any, reference: Array) -> Array:
    """A parameter (number or array) with the library, dtype and device of ``reference``."""
    if type(x) is np.ndarray is type(reference):
        return np.asarray(x, dtype=reference.dtype)
    if is_torch(x) and not is_torch(reference):
        raise TypeError("a parameter is a torch tensor but the positions are numpy; pass parameter.numpy() or a number")
    if is_torch(reference):
        import torch

        return torch.as_tensor(x, dtype=reference.dtype, device=reference.device)
    return np.asarray(x, dtype=reference.dtype)


def may_look(x: Any) -> bool:
    """Whether the values of ``x`` can be asked for: not on a device, nor under a compiler or a function transform."""
    if "torch" not in sys.modules:
        return True
    import torch

    if torch.compiler.is_compiling():
        return False
    if not is_torch(x):
        return True
    return x.device.type == "cpu" and torch._C._functorch.maybe_current_level() is None


def to_numpy(x: Any) -> np.ndarray:
    """A numpy copy (on the host, detached) of an array of either library."""
    if type(x) is np.ndarray:
        return x
    # Tensors alone can be detached: one question less than `is_torch`, asked of everything that is measured.
    if not hasattr(x, "detach"):
        return np.asarray(x)
    host = x.detach().cpu()
    try:
        return host.numpy()  # type: ignore[no-any-return]
    except TypeError:  # bfloat16, which numpy does not know, and every number of which is a float32
        return host.float().numpy()  # type: ignore[no-any-return]


def without_gradients(x: Array) -> AbstractContextManager[Any]:
    """A context in which torch records nothing; numpy never does."""
    if not is_torch(x):
        return nullcontext()
    import torch

    return torch.no_grad()


def all_finite(x: Array) -> bool:
    """Whether no entry is NaN or infinite."""
    if type(x) is np.ndarray or not is_torch(x):
        return bool(np.isfinite(x).all())
    return bool(x.isfinite().all())


def as_generator(rng: int | np.random.Generator | None) -> np.random.Generator:
    """A numpy generator from a seed or a generator; randomness is always an argument.

    Raises:
        TypeError: ``rng`` is ``None`` or of another type (a hidden global seed would make the run irreproducible).
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        return np.random.default_rng(int(rng))
    raise TypeError(f"rng must be an int seed or a numpy Generator, got {rng!r}; pass for example rng=0")
