"""Sets of keys as words of bits in band coordinates: what the forward kernel saves for the backward pass.

Word w of row i covers the places 32 (i // 32 + w) and the 31 after it, place = key - query_offset + left; with tiles
over all keys the keys 32 w and the 31 after it. W / 8 bytes a row and at most one word more. Random keys (`listed`)
come as such words too.
"""

import triton
import triton.language as tl

from .primitives import pack, pack_pair


@triton.jit
def _store_word(
    BITS, word, i, r, block, n, t, FULL: tl.constexpr, B: tl.constexpr, T: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Write tile t's bits into the words (WORDS, n): word w of row i starts at place 32 (i // 32 + w), 32 w if FULL."""
    if T == 32:
        if FULL:
            w = tl.zeros_like(r) + t
        else:
            w = t - r // 32
        tl.store(BITS + w.to(tl.int64) * n + i, word, mask=(i < n) & (w >= 0) & (w < WORDS))
    else:
        # Half words (B = 16): an odd block starts in the middle of its first word.
        half = t
        if not FULL:
            half = t + block % 2
        halves = BITS.to(tl.pointer_type(tl.int16), bitcast=True)
        tl.store(
            halves + ((half // 2) * n.to(tl.int64) + i) * 2 + half % 2,
            word.to(tl.int16),
            mask=(i < n) & (half + i * 0 < 2 * WORDS),
        )


@triton.jit
def clear_half_words(BITS, i, block, n, FULL: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr):
    """Zero the half words that no tile of 16 covers: the first one of an odd block, those after the last tile."""
    odd = block % 2
    if FULL:
        odd = block * 0
    halves = BITS.to(tl.pointer_type(tl.int16), bitcast=True)
    zero = tl.zeros_like(i).to(tl.int16)
    tl.store(halves + i.to(tl.int64) * 2, zero, mask=(i < n) & (odd + i * 0 > 0))
    for half in tl.static_range(NT, 2 * WORDS):
        tl.store(
            halves + ((half // 2) * n.to(tl.int64) + i) * 2 + half % 2, zero, mask=(i < n) & (half - odd + i * 0 >= NT)
        )


@triton.jit
def store_bits(
    BITS, keep, i, r, block, n, t, FULL: tl.constexpr, B: tl.constexpr, T: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Write a boolean tile (B, T) into the words of its rows."""
    if T == 64:
        word, second = pack_pair(keep, B)
        _store_word(BITS, word, i, r, block, n, 2 * t, FULL, B, 32, WORDS)
        _store_word(BITS, second, i, r, block, n, 2 * t + 1, FULL, B, 32, WORDS)
    else:
        _store_word(BITS, pack(keep, T), i, r, block, n, t, FULL, B, T, WORDS)


@triton.jit
def load_words(BITS, i, n, word, T: tl.constexpr, WORDS: tl.constexpr):
    """Words number `word` (rows,) of rows i >= 0 and, for tiles of 64 keys, the next ones; 0 where there are none."""
    inside = i < n
    low = tl.load(BITS + word.to(tl.int64) * n + i, mask=inside & (word >= 0) & (word < WORDS), other=0)
    if T > 32:
        word += 1
        high = tl.load(BITS + word.to(tl.int64) * n + i, mask=inside & (word >= 0) & (word < WORDS), other=0)
        return low, high
    else:
        return low, low


@triton.jit
def selected(words, c, T: tl.constexpr, ACROSS: tl.constexpr):
    """Bits of the tile's keys c as a tile (rows, T), or (T, rows) if ACROSS."""
    bit = of_keys(1 << (c & 31), ACROSS)
    word = of_rows(words[0], ACROSS)
    if T > 32:
        word = tl.where(of_keys(c < 32, ACROSS), word, of_rows(words[1], ACROSS))
    return (word & bit) != 0


@triton.jit
def of_rows(x, ACROSS: tl.constexpr):
    """A number per query, spread over a tile."""
    if ACROSS:
        return x[None, :]
    else:
        return x[:, None]


@triton.jit
def of_keys(x, ACROSS: tl.constexpr):
    """A number per key, spread over a tile."""
    if ACROSS:
        return x[:, None]
    else:
        return x[None, :]
