"""Launching a kernel again: what Triton's launcher works out on every call is remembered per call signature.

Triton specialises a kernel to dtypes, to the alignment of pointers and to the divisibility of integers, and looks the
compiled kernel up by all of that and every constant, some 50 microseconds of Python for a kernel of 60 arguments.
"""

from typing import Any

import torch

from .primitives import INTERPRETED

_COMPILED: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}
_MOST = 4096


def launch(kernel: Any, programs: int, arguments: tuple[Any, ...], constants: dict[str, Any], **options: Any) -> None:
    """``kernel[(programs,)](*arguments, **constants, **options)`` on the current device.

    Args:
        kernel: A jitted function; its run-time parameters come first.
        programs: Size of the grid.
        arguments: Tensors and numbers, all run-time parameters in order.
        constants: The compile-time parameters, by name.
        options: Of the compiler.
    """
    if INTERPRETED.value:
        kernel[(programs,)](*arguments, **constants, **options)
        return
    key = (
        id(kernel),
        torch.cuda.current_device(),
        tuple([(x.dtype, x.data_ptr() & 15) if isinstance(x, torch.Tensor) else x for x in arguments]),
        tuple(constants.values()),
        tuple(options.values()),
    )
    known = _COMPILED.get(key)
    if known is None:
        if len(_COMPILED) >= _MOST:
            _COMPILED.clear()
        compiled = kernel[(programs,)](*arguments, **constants, **options)
        _COMPILED[key] = compiled, tuple(constants[name] for name in kernel.arg_names[len(arguments) :])
        return
    compiled, rest = known
    compiled[(programs, 1, 1)](*arguments, *rest)
