"""What the compiled loops know of a call: whole numbers, and its tensors as numpy views."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Whole numbers that describe a call; the kernels see them as one argument."""

    heads: int
    kv_heads: int
    mass_heads: int  # 0: no masses, 1: shared by the heads of a batch element, else one row per head
    offset: int  # position of the first query among the keys
    distance: int  # 1: score -a/2 |q-k|^2, 0: a <q,k>
    top_k: int  # 0: all admitted keys stay
    keep_ties: int
    exempt: int  # leading positions that select nobody
    ranked: int  # 1: masses join before the ranking
    first: int  # leading keys admitted beside the window
    height: int  # 0: no grid
    width: int
    radius: int
    metric: int
    prefix: int
    wide_rows: int  # leading rows that may hear every key, and the bytes of their packed selection
    wide_bytes: int
    row_bytes: int
    seed: int


class Arrays(NamedTuple):
    """Inputs of a call as C-contiguous numpy views.

    Tokens are rows of memory wherever they lie, heads side by side as a projection leaves them or one after another:
    that of element b, head h and token i is row ``steps[0] b + steps[1] h + steps[2] i``.

    Attributes:
        q: Queries (rows, d).
        k: Keys (rows, d).
        v: Values (rows, d_v).
        steps: (3, 3) steps of the three over batch, heads and tokens, in rows.
        scale: (batch heads,) coefficient a of the score.
        mass: (batch mass_heads, m) log masses, -inf for keys that are not there.
        pair: Flat storage of the pair bias (size 0: none).
        strides: (4,) its strides over (batch, heads, n, m).
        lower: (n,) first key of each row's interval, from 0.
        upper: (n,) one past its last key, at most m.
        beside: (1 or batch, 2, n) first key and one past the last that each row hears beside its interval (size 0: the
            first of `Layout`).
        listed: (positions, keys) rising keys of each position, padded with -1 (size 0: intervals and grids decide).
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    steps: np.ndarray
    scale: np.ndarray
    mass: np.ndarray
    pair: np.ndarray
    strides: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    beside: np.ndarray
    listed: np.ndarray


class Tiles(NamedTuple):
    """Blocks of consecutive queries and the keys that any of them hears, listed head after head.

    Attributes:
        size: Queries a tile.
        span: Keys a tile of the chunk at hand, the longest one's; shorter ones are padded.
        number: Tiles a head; number p of the list is tile p % number of head p // number.
        begin: (number,) first key of each.
        end: (number,) one past its last key.
    """

    size: int
    span: int
    number: int
    begin: np.ndarray
    end: np.ndarray


class Given(NamedTuple):
    """What a backward pass is given beside `Arrays`.

    Attributes:
        log_partition: (batch heads, n) of the forward pass.
        bits: Packed selection of the forward pass; size 0: all admitted keys stayed.
        grad_log_partition: (batch heads, n).
        grad_out: Rows of memory (., d_v).
        steps: (1, 3) its steps, as in `Arrays`.
    """

    log_partition: np.ndarray
    bits: np.ndarray
    grad_log_partition: np.ndarray
    grad_out: np.ndarray
    steps: np.ndarray
