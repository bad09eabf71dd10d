"""Jacobians by torch's reverse mode; numpy goes in and comes out where asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from krause_dynamics._array import Array
from krause_dynamics._torch import torch


def jacobian(function: Callable[[Array], Array], x: Array) -> Array:
    """``d function(x)_a / d x_b`` with all axes flattened: (size, size), in the library of ``x``.

    Args:
        function: From a tensor to a tensor of the same shape, made of operations that torch can differentiate.
        x: Where; numpy arrays are handed to the function as float64 tensors.
    """
    tensor = torch.from_numpy(np.array(x, dtype=np.float64)) if isinstance(x, np.ndarray) else x.detach()
    result = torch.autograd.functional.jacobian(function, tensor, vectorize=True).reshape(
        tensor.numel(), tensor.numel()
    )
    return result.numpy() if isinstance(x, np.ndarray) else result
