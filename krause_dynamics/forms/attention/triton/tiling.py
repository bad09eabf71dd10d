"""A reach as the kernels see it for one number of keys, and the form in which the selected set is saved."""

from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import torch

from krause_dynamics.interaction.reach import MANHATTAN, UNBOUNDED, Reach

from .primitives import FAR

# Candidates that a row of the register kernel holds at most.
LARGEST_WINDOW = 512
# Radius and prefix up to which the patch kernel of grids serves.
LARGEST_RADIUS = 4
LARGEST_PREFIX = 16
NO_BOUND = int(FAR.value if hasattr(FAR, "value") else FAR)


class Tiling(NamedTuple):
    """Compile-time constants of the kernels: the reach with bounds that are numbers, and a top-k that restricts.

    Attributes:
        reach: Who is heard.
        left: Keys before the query that hold all that it hears (prefix aside).
        right: Keys after it.
        top_k: k, or 0 where no row can hear more.
        prefix: Leading tokens that hear all and are heard by all; with a window too.
        first: Leading keys that all which come later hear, beside a window of the past; 0 beside a prefix.
    """

    reach: Reach
    left: int
    right: int
    top_k: int
    prefix: int
    first: int = 0

    @property
    def keep_ties(self) -> bool:
        """Whether all that tie with the k-th stay."""
        return self.reach.keep_ties

    @property
    def has_grid(self) -> bool:
        """Whether the neighbourhood is one on a picture."""
        return bool(self.reach.grid)

    @property
    def height(self) -> int:
        """Rows of the picture; 1 without one."""
        return self.reach.grid[0] if self.reach.grid else 1

    @property
    def width(self) -> int:
        """Columns of the picture; 1 without one."""
        return self.reach.grid[1] if self.reach.grid else 1

    @property
    def radius(self) -> int:
        """In cells of the picture; 0 without one."""
        return self.reach.grid[2] if self.reach.grid else 0

    @property
    def constants(self) -> dict[str, Any]:
        """Keyword arguments shared by all kernels."""
        return {
            "LEFT": self.left,
            "RIGHT": self.right,
            "GRID": self.has_grid,
            "WIDTH": self.width,
            "RADIUS": self.radius,
            "MANHATTAN": self.has_grid and self.reach.grid[3] == MANHATTAN,
            "PREFIX": self.prefix,
            "FIRST": self.first,
        }

    @property
    def banded(self) -> bool:
        """Whether the neighbourhood is a window and nothing else."""
        return not self.has_grid and self.prefix == self.first == 0 and self.left + self.right < NO_BOUND

    @property
    def patched(self) -> bool:
        """Whether the patch kernel of grids serves: the candidates of a patch fit the registers."""
        return self.has_grid and self.radius <= LARGEST_RADIUS and self.prefix <= LARGEST_PREFIX

    @property
    def patch_words(self) -> int:
        """Words of 32 bits for the prefix and the cells within the radius."""
        return -(-(self.prefix + (2 * self.radius + 1) ** 2) // 32) if self.has_grid else 0

    def expected(self, keys: int) -> int:
        """Keys that a row in the middle hears; sets the first guess of the threshold, no result depends on it."""
        number = self.reach.cells + self.prefix if self.has_grid else self.left + self.right + 1
        if self.reach.random:
            number = min(number, self.reach.random[0] + self.reach.prefix)
        return max(1, min(number, keys))

    def registers(self, keys: int) -> tuple[bool, bool]:
        """(whether the register kernel serves, with tiles over all keys instead of a band)."""
        if self.reach.random:  # whose sets are saved, as those of a rank
            return True, True
        if self.top_k == 0:
            return False, False
        if self.banded and self.left + self.right + 1 <= LARGEST_WINDOW:
            return True, self.left + self.right + 1 >= keys
        return keys <= LARGEST_WINDOW, True


def tiling(reach: Reach, keys: int, prefix: int = 0) -> Tiling:
    """What the kernels make of a reach; a top-k that no row can exceed means none.

    Args:
        reach: Who is heard; a grid, if there is one, stands alone.
        keys: Number of keys.
        prefix: Leading tokens beside a window; a grid names its own.
    """
    k = 0 if reach.top_k >= keys else reach.top_k
    if reach.grid:
        return Tiling(reach, *reach.band, k, reach.prefix)
    left, right = (NO_BOUND if bound == UNBOUNDED else bound for bound in (reach.left, reach.right))
    if prefix == 0 and left + right + 1 <= k:
        k = 0
    first = reach.first if left < NO_BOUND else 0
    return Tiling(reach, left, right, k, prefix, first)


def words_of(hood: Tiling, full: bool, keys: int) -> int:
    """Words of 32 bits in which the selected set of a row is saved."""
    return -(-keys // 32) if full else (hood.left + hood.right + 31) // 32 + 1


@lru_cache(maxsize=256)
def expected_threshold(hood: Tiling, keys: int) -> tuple[float, float]:
    """Where the k-th of the expected number of normal scores lies, and the reciprocal of the density there."""
    number = hood.expected(keys)
    share = min(max(hood.top_k, 0.5), number - 0.5) / number if number > 1 else 0.5
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - share)
    return z, 1.0 / normal.pdf(z)


def selected_shape(
    q_shape: tuple[int, ...], k_shape: tuple[int, ...], *, reach: Reach, prefix: int = 0
) -> tuple[int, int, int, int]:
    """Shape (batch, heads, words, n) of the int32 selected set that `forward` saves; 0 words where none needs it.

    For grids (batch, heads, 1, words n + prefix words): words of every query, then those of the prefix queries over all
    keys.
    """
    batch, heads, n, _ = q_shape
    keys = k_shape[-2]
    hood = tiling(reach, keys, prefix)
    if hood.patched:
        words = hood.patch_words * n + hood.prefix * -(-keys // 32)
        return batch, heads, 1, words if hood.top_k else 0
    registers, full = hood.registers(keys)
    words = words_of(hood, full, keys) if registers else (2 if hood.top_k else 0)
    return batch, heads, words, n


def selected_mask(
    selected: torch.Tensor, n_keys: int, *, reach: Reach, prefix: int = 0, query_offset: int = 0
) -> torch.Tensor:
    """Dense boolean mask (batch, heads, n, n_keys) of the bit words that the register and grid kernels saved."""
    hood = tiling(reach, n_keys, prefix)
    if hood.patched and hood.top_k:
        return _mask_of_patches(selected[:, :, 0], n_keys, hood, query_offset)
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


def _mask_of_patches(selected: torch.Tensor, n_keys: int, hood: Tiling, query_offset: int) -> torch.Tensor:
    """Mask of what the grid kernel saved: a bit for each prefix key and cell, for prefix queries one for each key."""
    width, radius, prefix, words = hood.width, hood.radius, hood.prefix, hood.patch_words
    side = 2 * radius + 1
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
