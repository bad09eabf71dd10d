"""Every launch of a kernel must happen where its tensors lie; the interpreter, which has one device, is told so."""

import importlib
import pkgutil
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import triton.language as triton_language
from triton.runtime import interpreter
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


@cache
def _languages(fn):
    """Which modules of Triton's language a function of the device sees: functions of theirs see the inner one."""
    return frozenset(x.__name__ for x in fn.__globals__.values() if x is triton_language or x is triton_language.core)


@contextmanager
def unburdened():
    """Half of the interpreter's time goes into what changes no number, and is left out within it.

    Each call of a device function looks through Triton's language for names to patch, which is done already by a
    launch, or by the first call of it that sees that module; each sum of integers is checked for overflow, by an
    assertion that only `debug` would make.
    """
    patched, launch = set(), GridExecutor.__call__

    def launched(self, *args, **keywords):
        patched.clear()
        patched.update(_languages(self.fn))
        return launch(self, *args, **keywords)

    def called(self, *args, **keywords):
        if not patched.issuperset(_languages(self.fn)):
            interpreter._patch_lang(self.fn)
            patched.update(_languages(self.fn))
        return self.rewrite()(*args, **keywords)

    assert not interpreter.interpreter_builder.options.debug
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridExecutor, "__call__", launched)
        patch.setattr(interpreter.InterpretedFunction, "__call__", called)
        options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
        patch.setattr(interpreter.interpreter_builder, "options", options)
        yield
