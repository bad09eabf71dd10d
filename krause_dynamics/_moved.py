"""Import paths that users type, and the rooms in which the modules live: ``krause_dynamics.clusters`` is such a path.

One table serves attribute access (``kd.clusters``) and imports (``from krause_dynamics.clusters import find``): both
give the same module object.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

PACKAGE = __name__.rpartition(".")[0]
ROOMS = {
    "clusters": "analysis.clusters",
    "demo": "command.demo",
    "energies": "analysis.energies",
    "graphs": "analysis.graphs",
    "measures": "analysis.measures",
    "observables": "analysis.observables",
    "operators": "analysis.operators",
    "initial": "dynamics.initial",
    "matrices": "dynamics.matrices",
    "phase_diagrams": "sweeps.phase_diagrams",
    "stopping": "runs.stopping",
}
EVIDENCE = ("theory_table",)  # beside the package: in a checkout, not in a wheel


class Finder(MetaPathFinder):
    """Finds ``krause_dynamics.NAME`` (and what is below it) where `ROOMS` or `EVIDENCE` say; nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec whose loader hands out the module that lives elsewhere."""
        package, _, rest = fullname.partition(".")
        first, dot, below = rest.partition(".")
        if package != PACKAGE:
            return None
        if first in ROOMS:
            real = f"{PACKAGE}.{ROOMS[first]}{dot}{below}"
        elif first in EVIDENCE:
            _need_checkout(first)
            real = f"evidence.{rest}"
        else:
            return None
        found = importlib.util.find_spec(real)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _Alias(real), origin=found.origin, is_package=is_package)


class _Alias(Loader):
    """A loader whose module exists already under its real name."""

    def __init__(self, real: str) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.real)
        self.own = module.__spec__  # the import system is about to write its own over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own

    def get_code(self, name: str) -> CodeType | None:
        """For ``python -m krause_dynamics.NAME``."""
        spec = importlib.util.find_spec(self.real)
        loader = None if spec is None else spec.loader
        return loader.get_code(self.real) if isinstance(loader, InspectLoader) else None


def _need_checkout(name: str) -> None:
    """Make ``evidence`` importable, which lies beside the package in a checkout.

    Raises:
        ImportError: Installed from a wheel.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "evidence" / name / "__init__.py").is_file():
        raise ImportError(
            f"{PACKAGE}.{name} compares theory with simulation and comes with a checkout, not with an installed wheel; "
            "clone the repository and run 'make theory', or use krause_dynamics.theory for the formulas",
            name=f"{PACKAGE}.{name}",
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))
