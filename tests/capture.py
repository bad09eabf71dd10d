"""A capture of a CUDA graph as it looks to what asks for it, on a machine without a device."""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")  # they tell the host a value


class Unwaited(TorchDispatchMode):
    """Refuses what a capture refuses: that the host reads from the device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert not any(word in str(operation) for word in WAITS), operation
        return operation(*args, **(kwargs or {}))


@contextmanager
def captured():
    """Within it a stream says that it is captured, and reading from a tensor fails."""
    with (
        Unwaited(),
        mock.patch("torch.cuda.is_current_stream_capturing", return_value=True),
        mock.patch("torch.cuda.is_initialized", return_value=True),
        mock.patch("torch.cuda.is_available", return_value=True),
    ):
        yield
