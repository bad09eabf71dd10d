"""Forward kernel for neighbourhoods on grids: a program owns a patch of the grid and meets its halo, nothing else.

The queries of a patch of PH x PW cells (at most 16, the rows of one matrix product) hear cells of the patch enlarged by
the radius, at most PH + 2 radius rows and PW + 2 radius columns, HW where the grid ends before, and the PREFIX first
keys. These candidates, prefix first, then the halo row by row, are in the order of their keys; 4 x 4 cells and radius 2
have 64 for the 25 that a query hears (36 on a grid of 8 x 8), where a band of the flattened grid holds 4 radius width.

One warp keeps the scores of its 16 rows in registers. The k-th score is bracketed by counting passes (`kth_scores`) on
float32, so that ranks are those of the scores themselves; equal scores are cut by the order of candidates.

The selected set is saved as bits: bit p < PREFIX for a prefix key, bit PREFIX + (dr + radius) (2 radius + 1) + dc +
radius for the key dr rows and dc columns away. Prefix rows, which hear all m keys, have a program each in the same
launch and save one bit a key.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .grid_geometry import NOBODY, candidates, cells_of_patch, code, heard, load_listed, products
from .grid_prefix import prefix_row
from .grid_selection import cut_ties, kth_scores, words_of_scores
from .grid_sizes import Sizes, launches_of
from .primitives import LN2, LOG2E, RUN_TIME, float_of_ordinal, load_scale, ordinal_of_float, population, row_maximum
from .tiling import Tiling

# Constants that the kernel shares with the others.
SHARED = (
    "TOP_K", "KEEP_TIES", "WIDTH", "RADIUS", "MANHATTAN", "PREFIX", "D", "DP", "HAS_BIAS", "SCALE_TENSOR",
)  # fmt: skip


@triton.jit
def _values(
    V, pr, pc, m, stride, WIDTH: tl.constexpr, RADIUS: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
):  # fmt: skip
    """Values of the candidates, a tile each."""
    values = ()
    for t in tl.static_range(NT):
        j, inside, halo_row, halo_column = candidates(
            t * T + tl.arange(0, T), pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW, HW
        )
        values = values + (load_listed(V, j, inside, stride, D, DP),)
    return values


@triton.jit
def _finite_values(
    s, V, pr, pc, threshold, cleared, m, stride, WIDTH: tl.constexpr, RADIUS: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr,
    T: tl.constexpr,
    NT: tl.constexpr,
):  # fmt: skip
    """Weighted values once more: where not finite, 0 if not selected (0 * NaN is NaN) and NaN if selected."""
    values = _values(V, pr, pc, m, stride, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, HW, T, NT)
    out = tl.zeros([B, DP], tl.float32)
    poison = tl.zeros([B, DP], tl.float32)
    for t in tl.static_range(NT):
        keep = s[t] >= threshold[:, None]
        p = tl.where(keep, tl.exp2(tl.fma(s[t], LOG2E, cleared[:, None])), 0.0)
        v = values[t]
        finite = tl.abs(v.to(tl.float32)) < float("inf")
        out = tl.dot(p.to(v.dtype), tl.where(finite, v, tl.zeros_like(v)), out, input_precision="ieee")
        poison = tl.dot(keep.to(v.dtype), tl.where(finite, 0.0, 1.0).to(v.dtype), poison, input_precision="ieee")
    return tl.where(poison > 0, float("nan"), out)


@triton.jit
def _patch(
    Q, K, V, BIAS, OUT, LOGZ, BITS, pr, pc, scale, n, m, offset, stride_qn, stride_kn, stride_vn, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr,
    PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """Output, log-partition and bits of the queries of one patch of one head."""
    a, b, i, there = cells_of_patch(pr, pc, n, offset, PREFIX, WIDTH, PH, PW, B)
    row_code = code(a, b, 0, MANHATTAN)
    # All loads before the first product waits for one.
    keys = ()
    for t in tl.static_range(NT):
        j, inside, halo_row, halo_column = candidates(
            t * T + tl.arange(0, T), pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW, HW
        )
        keys = keys + (load_listed(K, j, inside, stride_kn, D, DP),)
    q = load_listed(Q, i, there, stride_qn, D, DP)
    s = ()
    for t in tl.static_range(NT):
        c = t * T + tl.arange(0, T)
        j, inside, halo_row, halo_column = candidates(c, pr, pc, m, PREFIX, WIDTH, RADIUS, PH, PW, HW)
        x = products(q, keys[t], Q, i, there, stride_qn, K, j, inside, stride_kn, D, DP) * scale
        if HAS_BIAS:
            bias = tl.load(BIAS + j.to(tl.int64), mask=inside, other=float("-inf"))
            inside = inside & (bias > float("-inf"))
            x = x + bias[None, :]
        hears = heard(
            tl.where(inside, code(halo_row, halo_column, RADIUS, MANHATTAN), NOBODY)[None, :], row_code[:, None], RADIUS
        )
        if t * T < PREFIX:
            hears = hears | ((c < PREFIX) & inside)[None, :]
        s = s + (tl.where(hears, x, float("-inf")),)
    highest = s[0]
    for t in tl.static_range(1, NT):
        highest = tl.maximum(highest, s[t], propagate_nan=tl.PropagateNan.ALL)
    top = row_maximum(highest)
    threshold = tl.zeros([B], tl.float32) - 3.4028234e38
    if TOP_K > 0:
        lowest = tl.zeros([B, T], tl.float32) + float("inf")
        seen = tl.zeros([B, T], tl.float32)
        for t in tl.static_range(NT):
            finite = s[t] > float("-inf")
            seen += finite.to(tl.float32)
            lowest = tl.minimum(lowest, tl.where(finite, s[t], float("inf")))
        number = tl.sum(seen, 1)
        lo = tl.min(lowest, 1)
        # One past the largest: fewer than K scores reach it.
        hi = float_of_ordinal(ordinal_of_float(top) + 1)
        settled = (number <= TOP_K) | ~there | (top != top) | (lo >= top)
        threshold = kth_scores(s, lo, hi, number, settled, TOP_K, NT)
        words = words_of_scores(s, threshold, a, b, pr, pc, PREFIX, RADIUS, PH, PW, HW, B, T, NT, WORDS)
        if not KEEP_TIES:
            chosen = population(words[0])
            for w in tl.static_range(1, WORDS):
                chosen += population(words[w])
            excess = (chosen > TOP_K) & there
            if tl.max(excess.to(tl.int32), 0) > 0:
                s = cut_ties(s, threshold, excess, TOP_K, NT, B, T)
                words = words_of_scores(s, threshold, a, b, pr, pc, PREFIX, RADIUS, PH, PW, HW, B, T, NT, WORDS)
        for w in tl.static_range(WORDS):
            tl.store(BITS + w * n.to(tl.int64) + i, words[w], mask=there)

    base = tl.where(top == float("-inf"), 0.0, top)
    cleared = -base * LOG2E
    values = _values(V, pr, pc, m, stride_vn, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, HW, T, NT)
    weights = tl.zeros([B, T], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    for t in tl.static_range(NT):
        p = tl.where(s[t] >= threshold[:, None], tl.exp2(tl.fma(s[t], LOG2E, cleared[:, None])), 0.0)
        weights += p
        out = tl.dot(p.to(values[t].dtype), values[t], out, input_precision="ieee")
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        out = _finite_values(s, V, pr, pc, threshold, cleared, m, stride_vn, WIDTH, RADIUS, PREFIX, D, DP, PH, PW, HW, B, T, NT)  # fmt: skip  # noqa: E501
    weight = tl.where(top == top, tl.sum(weights, 1), top)
    out = out / tl.where(weight == 0.0, 1.0, weight)[:, None]
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(tl.where(weight == 0.0, 1.0, weight)) * LN2)
    d = tl.arange(0, DP)
    tl.store(
        OUT + (i.to(tl.int64) * stride_on)[:, None] + d[None, :],
        out.to(OUT.dtype.element_ty),
        mask=there[:, None] & (d < D)[None, :],
    )
    tl.store(LOGZ + i, logz, mask=there)


@triton.jit(do_not_specialize=(*RUN_TIME, "units", "patches", "stored"))
def grid_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, SAVED,
    scale_value, n, m, heads, group, offset, units, patches, stored,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, EXEMPT: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr, PREFIX: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr,
    SCALE_TENSOR: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr, B: tl.constexpr,
    T: tl.constexpr, NT: tl.constexpr, WORDS: tl.constexpr,
    LEADING: tl.constexpr, PATCHES: tl.constexpr, KEYS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Programs of the first LEADING queries of every head, which take longest, then (if PATCHES) those of patches."""
    program = tl.program_id(0)
    first = units * LEADING
    each = LEADING if program < first else patches
    place = program if program < first else program - first
    unit = place // each
    patch = place % each
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    OUT += batch * stride_ob + head * stride_oh
    LOGZ += unit.to(tl.int64) * n
    BITS += unit.to(tl.int64) * stored
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    if LEADING > 0:
        if program < first:
            if TOP_K > 0:
                # Its own words are not read; nothing saved is left to chance.
                for w in tl.static_range(WORDS):
                    tl.store(BITS + w * n.to(tl.int64) + patch, 0)
            prefix_row(
                Q, K, V, BIAS, SAVED + (unit.to(tl.int64) * LEADING + patch) * m, OUT, LOGZ,
                BITS + WORDS * n.to(tl.int64) + patch * tl.cdiv(m, 32), patch, patch + offset >= EXEMPT, scale,
                m, stride_qn, stride_kn, stride_vn, stride_on, TOP_K, KEEP_TIES, D, DP, HAS_BIAS, KEYS, CHUNK,
            )  # fmt: skip
    if PATCHES:
        if program >= first:
            across: tl.constexpr = (WIDTH + PW - 1) // PW
            _patch(
                Q, K, V, BIAS, OUT, LOGZ, BITS, patch // across, patch % across, scale, n, m, offset, stride_qn,
                stride_kn, stride_vn, stride_on, TOP_K, KEEP_TIES, WIDTH, RADIUS, MANHATTAN, PREFIX, D, DP, HAS_BIAS,
                PH, PW, HW, B, T, NT, WORDS,
            )  # fmt: skip


def launch_grid(
    hood: Tiling, arrays: tuple, numbers: tuple, strides: tuple, common: dict[str, Any],
    chosen: Sizes | None = None,
) -> None:  # fmt: skip
    """Launch `grid_kernel`; arguments as prepared by `launch.forward`."""
    q, _, _, _, _, _, log_partition, selected = arrays
    batch, heads, n, d = q.shape
    _, _, m, _, _, offset = numbers
    leading = min(max(hood.prefix - offset, 0), n)
    saved = torch.empty((batch, heads, leading, m), dtype=torch.float32, device=q.device) if leading else log_partition
    constants = {name: common[name] for name in SHARED} | {"EXEMPT": hood.reach.exempt}
    stored = selected.shape[-1] * selected.shape[-2]
    for one in launches_of(hood, offset + n, leading, m, d, q.dtype, False, chosen):
        grid_kernel[(batch * heads * one.programs,)](
            *arrays, saved, *numbers, batch * heads, one.patches, stored, *strides, **constants, **one.constants,
            CHUNK=max(256, 128 * one.options["num_warps"]), **one.options,
        )  # fmt: skip
