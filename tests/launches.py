"""Every launch of a kernel must happen where its tensors lie; the interpreter, which has one device, is told so."""

import importlib
import pkgutil
from contextlib import contextmanager

import pytest
from triton.runtime.interpreter import GridExecutor

from krause_dynamics.forms.attention import triton


@contextmanager
def guarded():
    """Within it a launch outside of `on_device`, and of the device that a replayed one asks for, fails."""
    depth, launch = [0], GridExecutor.__call__

    @contextmanager
    def counted(_tensor):
        depth[0] += 1
        try:
            yield
        finally:
            depth[0] -= 1

    def checked(self, *args, **keywords):
        assert depth[0], f"{self.fn.__name__} is launched outside of on_device"
        return launch(self, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        for found in pkgutil.iter_modules(triton.__path__):
            module = importlib.import_module(f"{triton.__name__}.{found.name}")
            for name in ("on_device", "_reaching"):
                if hasattr(module, name):
                    patch.setattr(module, name, counted)
        patch.setattr(GridExecutor, "__call__", checked)
        yield
