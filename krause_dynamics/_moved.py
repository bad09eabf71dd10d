"""Import paths that users type, and the rooms in which the modules live: ``krause_dynamics.clusters`` is such a path.

One table serves attribute access (``kd.clusters``) and imports (``from krause_dynamics.clusters import find``): both
give the same module object.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

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


class Finder:
    """Finds ``krause_dynamics.NAME`` (and what is below it) where `ROOMS` or `EVIDENCE` say; nothing else."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A spec whose loader hands out the module that lives elsewhere."""
        package, _, rest = name.partition(".")
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
        return ModuleSpec(name, _Alias(real), is_package=True)  # type: ignore[arg-type]


class _Alias:
    """A loader whose module exists already under its real name."""

    def __init__(self, real: str) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.real)
        self.own = module.__spec__  # the import system is about to write its own over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own

    def get_code(self, name: str) -> Any:
        """For ``python -m krause_dynamics.NAME``."""
        spec = importlib.util.find_spec(self.real)
        return spec.loader.get_code(self.real)  # type: ignore[union-attr]


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
