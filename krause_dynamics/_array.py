"""Which array library the arguments belong to (array API: numpy or torch), and the checks made once at the border."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device  # other modules take it from here

Array = Any  # jaxtyping's Float[Array, "*batch n d"] then accepts every library
_MET: dict[type, Any] = {np.ndarray: array_namespace(np.empty(0))}  # namespaces by type; others join when first met


def is_torch(x: object) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    kind: Any = type(x)
    return kind is not np.ndarray and _is_tensor_type(kind)


@lru_cache(maxsize=256)
def _is_tensor_type(kind: type) -> bool:
    # By name: while another thread imports torch, `sys.modules` holds a module that has no Tensor yet.
    return any(c.__name__ == "Tensor" and c.__module__ == "torch" for c in kind.__mro__)


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
    if not (isinstance(x, np.ndarray | np.generic) or is_torch(x) or hasattr(x, "to_numpy")):  # tables of pandas
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(x).__name__}")


def _kind(x: object) -> str:
    return "torch.Tensor" if is_torch(x) else "numpy.ndarray"


def is_floating(x: Any) -> bool:
    """Whether ``x`` is an array as the operation takes it: floating, in the machine's byte order, no subclass."""
    if type(x) is np.ndarray:
        return x.dtype.kind == "f" and x.dtype.isnative
    return is_torch(x) and bool(x.is_floating_point())


def as_floating(name: str, x: Any, dtype: Any = None) -> Array:
    """``x`` as a floating array of its library; floating arrays are returned as they are.

    Lists, integers, booleans, matrices, other byte orders, numbers as objects and tables of pandas are converted.

    Args:
        name: For messages.
        x: The numbers.
        dtype: What becomes of numbers that are not floating; ``None``: float64.

    Raises:
        TypeError: No real numbers.
    """
    if is_floating(x):
        return x
    if is_torch(x):
        if x.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {x.dtype}")
        return x.to(dtype) if dtype is not None else x.double()
    array = unmasked(name, x)
    if array.dtype.kind == "O" and not any(isinstance(item, str | bytes | complex) for item in array.flat):
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must hold real numbers, got objects such as {array.flat[0]!r}") from None
    if array.dtype.kind not in "iubf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return np.asarray(array, array.dtype.newbyteorder("=") if array.dtype.kind == "f" else dtype or np.float64)


def unmasked(name: str, x: Any) -> np.ndarray:
    """``x`` as a numpy array; one that says of entries that they are absent would be read as if they were there.

    Raises:
        ValueError: Masked entries.
    """
    if np.ma.is_masked(x):
        raise ValueError(
            f"{name} must have no masked entries, got {int(np.ma.count_masked(x))} of them; leave them out "
            "(x.compressed()), or take points out with log_mass = -inf"
        )
    return np.asarray(x)


def as_one_kind(**arrays: Any) -> list[Array | None]:
    """Named arrays as floating ones, where integers and booleans take the dtype of those that are floating.

    Raises:
        TypeError: An argument is no array, or holds no real numbers.
    """
    found = {name: x for name, x in arrays.items() if x is not None}
    for name, x in found.items():
        _check_is_array(name, x)
    dtype = next((x.dtype for x in found.values() if is_floating(x)), None)
    return [None if x is None else as_floating(name, x, dtype) for name, x in arrays.items()]


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


def may_wait(x: Any) -> bool:
    """As `may_look`, but also on a GPU, which is waited for: not while a compiler or a CUDA graph listens."""
    if is_captured():
        return False  # of no device: the graph is repeated with other values
    if may_look(x):
        return True
    import torch

    if not is_torch(x) or x.device.type != "cuda" or torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is None


def is_captured() -> bool:
    """Whether a CUDA graph captures what is computed now."""
    if "torch" not in sys.modules:
        return False
    import torch

    if torch.compiler.is_compiling():  # which would not trace the question
        return False
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def to_numpy(x: Any) -> np.ndarray:
    """A numpy copy (on the host, detached) of an array of either library."""
    if type(x) is np.ndarray:
        return x
    # Tensors alone can be detached: one question less than `is_torch`, asked of everything that is measured.
    if not hasattr(x, "detach"):
        return unmasked("the array", x)
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
        ValueError: A negative seed.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng must be a seed of at least 0, got {rng}")
        return np.random.default_rng(int(rng))
    raise TypeError(f"rng must be an int seed or a numpy Generator, got {rng!r}; pass for example rng=0")
