"""What is to be done to another library once somebody imports it; nothing is imported for it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_loaded(name: str, then: Callable[[ModuleType], object]) -> None:
    """Call ``then(module)`` now if the module is loaded, else right after it has been.

    Args:
        name: Full name of the module.
        then: What to do with it.
    """
    if name in sys.modules:
        module = importlib.import_module(name)  # waits for another thread that is at it
        if not getattr(module.__spec__, "_initializing", False):
            then(module)
            return
    sys.meta_path.insert(0, _AfterImport(name, then))


class _AfterImport(MetaPathFinder, Loader):
    """Finds one module as others do, and acts once it is loaded."""

    def __init__(self, name: str, then: Callable[[ModuleType], object]) -> None:
        self.name = name
        self.then = then
        self.asks_others = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that others find, with a loader that tells us."""
        if fullname != self.name or self.asks_others:
            return None
        self.asks_others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.asks_others = False
        if spec is not None and spec.loader is not None:
            self.real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the real loader does, and then ours."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.real
        self.real.exec_module(module)
        sys.meta_path.remove(self)
        self.then(module)
