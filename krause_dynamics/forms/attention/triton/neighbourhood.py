"""Who is heard, in the words of the kernels, and the form in which the selected set is saved."""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import torch

from .primitives import FAR

# Candidates that a row of the register kernel holds at most.
LARGEST_WINDOW = 512
# Radius and prefix up to which the patch kernel of grids serves.
LARGEST_RADIUS = 4
LARGEST_PREFIX = 16
NO_BOUND = int(FAR.value if hasattr(FAR, "value") else FAR)


@dataclass(frozen=True)
class Neighbourhood:
    """Who is heard, as compile-time constants of the kernels: window reach, grid geometry, prefix, top-k."""

    left: int
    right: int
    top_k: int
    keep_ties: bool
    grid: tuple[int, int, int, str] | None
    prefix: int

    @property
    def constants(self) -> dict[str, Any]:
        """Keyword arguments shared by all kernels."""
        _, width, radius, metric = self.grid or (1, 1, 0, "chebyshev")
        return {
            "LEFT": self.left,
            "RIGHT": self.right,
            "GRID": self.grid is not None,
            "WIDTH": width,
            "RADIUS": radius,
            "MANHATTAN": metric == "manhattan",
            "PREFIX": self.prefix,
        }

    @property
    def banded(self) -> bool:
        """Whether the neighbourhood is a window and nothing else."""
        return self.grid is None and self.prefix == 0 and self.left + self.right < NO_BOUND

    @property
    def cells(self) -> bool:
        """Whether the patch kernel of grids serves: the candidates of a patch fit the registers."""
        return self.grid is not None and self.grid[2] <= LARGEST_RADIUS and self.prefix <= LARGEST_PREFIX

    @property
    def cell_words(self) -> int:
        """Words of 32 bits for the prefix and the cells within the radius."""
        return 0 if self.grid is None else -(-(self.prefix + (2 * self.grid[2] + 1) ** 2) // 32)

    def expected(self, keys: int) -> int:
        """Keys that a row in the middle hears; sets the first guess of the threshold, no result depends on it."""
        if self.grid is None:
            return max(1, min(self.left + self.right + 1, keys))
        radius = self.grid[2]
        near = 2 * radius * (radius + 1) + 1 if self.grid[3] == "manhattan" else (2 * radius + 1) ** 2
        return max(1, min(near + self.prefix, keys))

    def registers(self, keys: int) -> tuple[bool, bool]:
        """(whether the register kernel serves, with tiles over all keys instead of a band)."""
        if self.top_k == 0:
            return False, False
        if self.banded and self.left + self.right + 1 <= LARGEST_WINDOW:
            return True, self.left + self.right + 1 >= keys
        return keys <= LARGEST_WINDOW, True


def neighbourhood(
    left: int | None, right: int | None, top_k: int | None, ties: str, grid: tuple | None, prefix: int, keys: int
) -> Neighbourhood:
    """Normalise the arguments of `forward`; None means no bound, and a top_k that no row can exceed means none."""
    k = 0 if top_k is None or top_k >= keys else int(top_k)
    if grid is not None:
        height, width, radius, metric = grid
        reach = radius * width + (radius if metric == "chebyshev" else 0)
        return Neighbourhood(reach, reach, k, ties == "keep", (height, width, radius, metric), prefix)
    left = NO_BOUND if left is None else int(left)
    right = NO_BOUND if right is None else int(right)
    if prefix == 0 and left + right + 1 <= k:
        k = 0
    return Neighbourhood(left, right, k, ties == "keep", None, prefix)


def words_of(hood: Neighbourhood, full: bool, keys: int) -> int:
    """Words of 32 bits in which the selected set of a row is saved."""
    return -(-keys // 32) if full else (hood.left + hood.right + 31) // 32 + 1


@lru_cache(maxsize=256)
def expected_threshold(hood: Neighbourhood, keys: int) -> tuple[float, float]:
    """Where the k-th of the expected number of normal scores lies, and the reciprocal of the density there."""
    number = hood.expected(keys)
    share = min(max(hood.top_k, 0.5), number - 0.5) / number if number > 1 else 0.5
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - share)
    return z, 1.0 / normal.pdf(z)


def selected_shape(
    q_shape: tuple, k_shape: tuple, *, left=None, right=None, top_k=None, ties="index", grid=None, prefix=0
) -> tuple[int, int, int, int]:
    """Shape (batch, heads, words, n) of the int32 selected set that `forward` saves; 0 words where none needs it.

    For grids (batch, heads, 1, words n + prefix words): words of every query, then those of the prefix queries over all
    keys.
    """
    batch, heads, n, _ = q_shape
    keys = k_shape[-2]
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    if hood.cells:
        return batch, heads, 1, hood.cell_words * n + prefix * -(-keys // 32) if hood.top_k else 0
    registers, full = hood.registers(keys)
    words = words_of(hood, full, keys) if registers else (2 if hood.top_k else 0)
    return batch, heads, words, n


def selected_mask(
    selected: torch.Tensor, n_keys: int, *, left=None, right=None, top_k=None, grid=None, prefix=0, query_offset=0
):
    """Dense boolean mask (batch, heads, n, n_keys) of the bit words that the register and grid kernels saved."""
    hood = neighbourhood(left, right, top_k, "index", grid, prefix, n_keys)
    if hood.cells and hood.top_k:
        return _mask_of_cells(selected[:, :, 0], n_keys, hood, query_offset)
    registers, full = hood.registers(n_keys)
    if not registers:
        raise ValueError(
            "selected_mask reads bit words; this neighbourhood was served by the streaming kernel, which saves none"
        )
    batch, heads, words, n = selected.shape
    i = torch.arange(n, device=selected.device)
    j = torch.arange(n_keys, device=selected.device)
    place = j[None, :].expand(n, -1) if full else j[None, :] - query_offset + hood.left - i[:, None] // 32 * 32
    inside = (place >= 0) & (place < 32 * words)
    place = place.clamp(0, 32 * words - 1)
    index = (place // 32).T.expand(batch, heads, -1, -1)
    bit = (torch.gather(selected, 2, index) >> (place % 32).T.to(torch.int32)) & 1
    return (bit.transpose(-1, -2) != 0) & inside


def _mask_of_cells(selected: torch.Tensor, n_keys: int, hood: Neighbourhood, query_offset: int) -> torch.Tensor:
    """Mask of what the grid kernel saved: a bit for each prefix key and cell, for prefix queries one for each key."""
    _, width, radius, _ = hood.grid or (0, 1, 0, "")
    prefix, side, words = hood.prefix, 2 * radius + 1, hood.cell_words
    keys = torch.arange(n_keys, device=selected.device)
    row_words = -(-n_keys // 32)
    n = (selected.shape[-1] - prefix * row_words) // words
    i = torch.arange(n, device=selected.device)[:, None] + query_offset - prefix
    j = keys[None, :] - prefix
    down, across = j // width - i // width, j % width - i % width
    leading = (j < 0).expand(n, -1)
    bit = torch.where(leading, keys[None, :], prefix + (down + radius) * side + across + radius)
    bit = bit.clamp(0, 32 * words - 1)
    cells = selected[..., : words * n].unflatten(-1, (words, n)).mT
    word = torch.gather(cells, -1, (bit // 32).expand(*cells.shape[:2], -1, -1))
    inside = leading | ((down.abs() <= radius) & (across.abs() <= radius))
    mask = (((word >> (bit % 32).to(torch.int32)) & 1) != 0) & inside
    hearing_all = min(max(prefix - query_offset, 0), n)
    if hearing_all:
        rows = selected[..., words * n :].unflatten(-1, (prefix, row_words))[..., :hearing_all, :]
        mask[..., :hearing_all, :] = ((rows[..., keys // 32] >> (keys % 32).to(torch.int32)) & 1) != 0
    return mask
