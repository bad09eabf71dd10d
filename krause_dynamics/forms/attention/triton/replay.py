"""The host's share of a call, recorded once for a signature and repeated: allocations and launches, nothing else.

Which kernels run, with which constants, sizes and strides, follows from the shapes of a call's tensors and from its
options. Working that out in Python, and Triton's own look-up of a compiled kernel by all its arguments, takes longer
than the launches themselves, and longer than short sequences take to compute (`benchmarks/attention_calls.py`). So the
second call of a signature is recorded, and later ones allocate and launch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from .primitives import INTERPRETED

_aten = torch.ops.aten
_ALLOCATIONS = {
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_strided.default,
    _aten.new_empty.default,
}
_VIEWS = {
    _aten.alias.default,
    _aten.detach.default,
    _aten.expand.default,
    _aten.select.int,
    _aten.slice.Tensor,
    _aten.split_with_sizes.default,
    _aten.transpose.int,
    _aten.view.default,
}
_KERNEL: Any = InterpretedFunction if INTERPRETED.value else JITFunction
_LOCK = threading.RLock()
_RECORDINGS: dict[Any, Any] = {}
_MOST = 1024
_SEEN, _NEVER = "seen once", "not to be repeated"


class _Launch(NamedTuple):
    """A compiled kernel, its arguments, and where among them which tensor of the call belongs, from which number on."""

    run: Callable[..., Any]
    arguments: list[Any]
    places: list[tuple[int, int, int]]


class _Recording(NamedTuple):
    """Tensors to allocate after those given, launches, and which tensors are returned; numbers count all tensors."""

    allocations: list[tuple[torch.Size, tuple[int, ...], torch.dtype]]
    launches: list[_Launch]
    returned: list[int | None]

    def repeat(self, tensors: tuple[Tensor | None, ...], device: torch.device) -> tuple[Any, ...]:
        new = torch.empty_strided
        held = [
            *tensors,
            *[new(shape, strides, dtype=dtype, device=device) for shape, strides, dtype in self.allocations],
        ]
        with _reaching(device):
            _launch_on(device, self.launches, held)
        return tuple([None if which is None else held[which] for which in self.returned])


def _launch_on(device: torch.device, launches: list[_Launch], held: list[Tensor | None]) -> None:
    if INTERPRETED.value:
        for run, template, places in launches:
            arguments = template.copy()
            for place, which, offset in places:
                tensor = held[which]
                arguments[place] = tensor.view(-1)[offset:] if offset and tensor is not None else tensor
            run(*arguments)
        return
    # Addresses and the stream are looked up once, not by every launch.
    addresses = [0 if x is None else x.data_ptr() for x in held]
    stream = torch._C._cuda_getCurrentRawStream(device.index)
    for run, template, places in launches:
        arguments = template.copy()
        for place, which, offset in places:
            tensor = held[which]
            arguments[place] = addresses[which] + (offset * tensor.itemsize if offset and tensor is not None else 0)
        run(*arguments, stream=stream)


def recorded(
    function: Callable[..., tuple[Any, ...]], tensors: tuple[Tensor | None, ...], rest: tuple[Any, ...]
) -> tuple[Any, ...]:
    """``function(*tensors, *rest)``, from its third call with such tensors and the same `rest` on by its record.

    Args:
        function: Allocates tensors and launches Triton kernels; anything else it does keeps it from being repeated.
        tensors: Tensors of one device, or ``None``; the first is a tensor.
        rest: Hashable.

    Returns:
        What the function returns, a tuple of tensors and ``None``.
    """
    first = tensors[0]
    assert first is not None
    pointers = [0 if x is None else x.data_ptr() for x in tensors]
    # Kernels are compiled for aligned pointers; one tensor given twice is told apart from two.
    shared = None if len(set(pointers)) == len(pointers) else tuple([pointers.index(p) for p in pointers])
    layout = tuple([None if x is None else (x.shape, x.stride(), x.dtype) for x in tensors])
    key = (function, rest, first.device, layout, tuple([p & 15 for p in pointers]), shared)
    found = _RECORDINGS.get(key)
    if isinstance(found, _Recording):
        return found.repeat(tensors, first.device)
    if found is None:
        if len(_RECORDINGS) >= _MOST:
            _RECORDINGS.clear()
        _RECORDINGS[key] = _SEEN
    if found != _SEEN:
        return function(*tensors, *rest)
    with _Watch() as watch, _recording_launches() as launches:
        result = function(*tensors, *rest)
    _RECORDINGS[key] = _recording(tensors, watch, launches, result) or _NEVER
    return result


class _Watch(TorchDispatchMode):
    """Sees what a call does besides launching: tensors that it allocates, and whether it does anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[Tensor] = []
        self.clean = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _ALLOCATIONS:
            self.allocated.append(result)
        elif func not in _VIEWS:
            self.clean = False
        return result


@contextmanager
def _recording_launches() -> Any:
    """The launches of this thread: (kernel, compiled kernel, grid, arguments in the order of the signature)."""
    launches: list[tuple[Any, Any, Any, list[Any]]] = []
    thread = threading.get_ident()

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        with _disable_current_modes():  # the interpreter computes with tensors
            compiled = original(kernel, *args, grid=grid, warmup=warmup, **options)
        if threading.get_ident() == thread:
            named = [options[name] for name in kernel.arg_names[len(args) :]]
            launches.append((kernel, compiled, grid, [*args, *named]))
        return compiled

    with _LOCK:
        original = _KERNEL.run
        _KERNEL.run = run
        try:
            yield launches
        finally:
            _KERNEL.run = original


def _recording(
    tensors: tuple[Tensor | None, ...], watch: _Watch, launches: list[Any], result: tuple[Any, ...]
) -> _Recording | None:
    """The record as a recording, or ``None`` where something in it cannot be repeated."""
    held = [*tensors, *watch.allocated]

    def find(x: Tensor) -> tuple[int, int]:
        """Number of the tensor that x is, or else is a part of, and the offset."""
        parts = []
        for number, y in enumerate(held):
            if y is None or y.dtype != x.dtype:
                continue
            offset = (x.data_ptr() - y.data_ptr()) // x.itemsize
            if offset == 0 and (x.numel() > 0 or y.shape == x.shape):
                return number, 0
            # Parts of what was given only where it has no holes, in which another tensor might lie.
            if 0 < offset < y.numel() and (number >= len(tensors) or y.is_contiguous()):
                parts.append((number, offset))
        return parts[0] if parts else (-1, 0)

    steps = []
    for kernel, compiled, grid, arguments in launches:
        places = [(place, *find(x)) for place, x in enumerate(arguments) if isinstance(x, Tensor)]
        template = [None if isinstance(x, Tensor) else x for x in arguments]
        steps.append(_Launch(_runner(kernel, compiled, (*grid, 1, 1)[:3]), template, places))
    returned = [None if x is None else find(x) for x in result]
    used = [number for step in steps for _, number, _ in step.places]
    used += [-1 if found[1] else found[0] for found in returned if found is not None]
    given = [None if found is None else held[found[0]] for found in returned]
    whole = all(
        x is None or (y is not None and (x.shape, x.stride()) == (y.shape, y.stride()))
        for x, y in zip(result, given, strict=True)
    )
    if not watch.clean or min(used, default=-1) < 0 or not whole:
        return None
    return _Recording(
        [(x.shape, x.stride(), x.dtype) for x in watch.allocated],
        steps,
        [None if x is None else x[0] for x in returned],
    )


def _runner(kernel: Any, compiled: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    return kernel[grid] if INTERPRETED.value else compiled[grid]  # type: ignore[no-any-return]


def _reaching(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
