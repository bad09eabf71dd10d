"""Five trained models looked at as particle systems, beside what is published of such models.

    python -m evidence.trained_models NAME ...     analyses what is installed and stores it in results/
    python -m evidence.trained_models              prints figures/trained_models.md from what is stored

Pictures of the site are drawn from the stored results (``docs/gallery``), so that nobody needs the weights to build it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import krause_dynamics as kd

if TYPE_CHECKING:
    import xarray

RESULTS = Path(__file__).parent / "results"


def stored(name: str) -> xarray.Dataset:
    """The answer that is kept of a model."""
    found = kd.open(RESULTS / f"{name}.nc")
    assert not isinstance(found, kd.Trajectory)
    return found
