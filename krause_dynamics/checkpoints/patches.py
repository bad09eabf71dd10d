"""What a vision model does with its class token, its registers and its patches, each apart.

The first token of a vision model is the class token, if it has one, and not a sink by position alone; sinks without a
place of their own show as patches of large norm that all hear, and registers are there to take their part (Darcet et
al. 2309.16588). So attention is told by what receives it, and norms and cosines of patches without the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._arguments import Is, Real, reads
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

OUTLIER = 3.0


@reads(run=Is(Trajectory, "checkpoints.record(model, pixels)"), outlier=Real(1.0))
def patches(run: Trajectory, *, outlier: float = OUTLIER) -> xarray.Dataset:
    """Attention to class token, registers and patches on their grid, and norms of the same.

    Args:
        run: Of `record` on pictures, of a model whose patches stand on a grid.
        outlier: A patch is one where its norm is above that many times the median of the patches of its picture.

    Returns:
        Dataset over sequence (picture), block, head, special (class, register 1, ...), row and column. Of attention,
        where it was recorded, mean over all queries: ``special_importance`` (sequence, block, head, special) and
        ``patch_importance`` (..., row, column), which sum to 1 together; ``peak`` (sequence, block, head), the largest
        of a patch over their mean. Of states: ``patch_norm`` (sequence, layer, row, column) and ``special_norm``
        (sequence, layer, special), in units of the median patch of that picture and layer; ``outlier_share`` and
        ``patch_cosine`` (sequence, layer), the mean cosine between different patches.

    Raises:
        ValueError: A run that is not of pictures on a grid.
    """
    import xarray

    if "grid" not in run.extras:
        raise ValueError(
            "run must be of a vision model whose patches stand on a grid (its configuration has patch_size): record it "
            "from pixels or image files"
        )
    rows, columns = (int(n) for n in run.extras["grid"])
    before, after = (int(n) for n in run.extras["beside_grid"])
    inside = slice(before, before + rows * columns)
    names = _names(run, before, after)
    special = np.r_[0:before, before + rows * columns : before + rows * columns + after]
    found: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]] = {}
    if "importance" in run.extras:
        alpha = np.moveaxis(run.extras["importance"], 0, 1)  # (sequence, block, head, T)
        grid, here = alpha[..., inside], ("sequence", "block", "head")
        by_place = grid.reshape(*grid.shape[:-1], rows, columns)
        found["special_importance"] = (
            (*here, "special"), alpha[..., special], {"long_name": "attention that a special token receives"}
        )  # fmt: skip
        found["patch_importance"] = (
            (*here, "row", "column"), by_place, {"long_name": "attention that a patch receives"}
        )  # fmt: skip
        found["peak"] = (here, grid.max(-1) / grid.mean(-1), {"long_name": "largest of a patch over their mean"})
    found |= _of_states(run.positions, inside, special, (rows, columns), outlier)
    coords = {"special": names, "layer": run.times.astype(int)}
    if "importance" in run.extras:
        coords["block"] = np.arange(1, len(run.extras["importance"]) + 1)
    about = {"outlier": outlier, "model": str(run.meta.get("model", ""))}
    return xarray.Dataset(found, coords=coords, attrs=about)


def _of_states(
    positions: np.ndarray, inside: slice, special: np.ndarray, grid: tuple[int, int], outlier: float
) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, str]]]:
    """Norms and cosines; positions are (layers, sequences, T, d)."""
    states = np.moveaxis(positions, 0, 1).astype(np.float64)
    norms = np.linalg.norm(states, axis=-1)
    norms /= np.median(norms[..., inside], axis=-1, keepdims=True)
    unit = states[..., inside, :]
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    number = unit.shape[-2]
    cosine = (np.linalg.norm(unit.sum(-2), axis=-1) ** 2 - number) / (number * (number - 1) or np.nan)
    here, size = ("sequence", "layer"), "norm in units of the median patch"
    on_grid = norms[..., inside].reshape(*norms.shape[:-1], *grid)
    words = f"patches whose norm is above {outlier:g} times the median"
    return {
        "patch_norm": ((*here, "row", "column"), on_grid, {"long_name": f"patch: {size}"}),
        "special_norm": ((*here, "special"), norms[..., special], {"long_name": f"special token: {size}"}),
        "outlier_share": (here, (norms[..., inside] > outlier).mean(-1), {"long_name": words}),
        "patch_cosine": (here, cosine, {"long_name": "mean cosine between different patches"}),
    }


def _names(run: Trajectory, before: int, after: int) -> list[str]:
    """What the tokens beside the patches are called."""
    kind, registers = str(run.meta.get("model_type", "")), max(before - 1, 0)
    if kind.startswith("deit") and before == 2:
        names = ["class", "distillation"]
    else:
        names = ["class"][:before] + [f"register {i + 1}" for i in range(registers)]
    return names + [f"detection {i + 1}" for i in range(after)]
