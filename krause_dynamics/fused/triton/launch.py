"""Border of the Triton kernels: choice of kernel and tile sizes, allocation, launch. Plain tensors in and out.

Query i (at position i + query_offset) hears key j when j is in the window [position - left, position + right] or in
the grid neighbourhood, or when one of the two is among the first `prefix` tokens, and key_bias[..., j] > -inf; of
these the `top_k` best by

    s_ij = scale * <q_i, k_j> + key_bias_j            (float32: product, scale and sum rounded in this order)

are selected, the earlier key winning a tie (`ties="index"`) or all that tie being kept (`ties="keep"`). Then

    log Z_i = log sum_j exp s_ij,     out_i = sum_j exp(s_ij - log Z_i) v_j,

and out = 0, log Z = -inf in a row that hears no key.

Two kernels share the work: `forward_kernel` holds a row's candidates in registers (windows to 512 keys, or at most 512
keys in all) and saves the selected set as bit words; `streaming_kernel` walks over any neighbourhood and saves the
k-th score and the cut among its ties.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
import triton

from .backward import backward_keys_kernel, backward_queries_kernel
from .decode import decode_kernel
from .forward import forward_kernel
from .primitives import FAR, INTERPRETED
from .streaming import streaming_kernel

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST_HEAD = 256
# Candidates a row of the register kernel holds at most, and numbers of a cache that one decoding program reads at most.
LARGEST_WINDOW = 512
LARGEST_CACHE = 65536
_NO_BOUND = int(FAR.value if hasattr(FAR, "value") else FAR)


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
        return self.grid is None and self.prefix == 0 and self.left + self.right < _NO_BOUND

    def expected(self, keys: int) -> int:
        """Keys that a row in the middle hears; sets the first guess of the threshold, no result depends on it."""
        if self.grid is None:
            return max(1, min(self.left + self.right + 1, keys))
        radius = self.grid[2]
        near = 2 * radius * (radius + 1) + 1 if self.grid[3] == "manhattan" else (2 * radius + 1) ** 2
        return max(1, min(near + self.prefix, keys))


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of one launch of the register kernel."""

    queries: int
    keys: int
    warps: int
    hold: bool
    sample: int
    registers: int | None = None


def neighbourhood(
    left: int | None, right: int | None, top_k: int | None, ties: str, grid: tuple | None, prefix: int, keys: int
) -> Neighbourhood:
    """Normalise the arguments of `forward`; None means no bound, and a top_k that no row can exceed means none."""
    k = 0 if top_k is None or top_k >= keys else int(top_k)
    if grid is not None:
        height, width, radius, metric = grid
        reach = radius * width + (radius if metric == "chebyshev" else 0)
        return Neighbourhood(reach, reach, k, ties == "keep", (height, width, radius, metric), prefix)
    left = _NO_BOUND if left is None else int(left)
    right = _NO_BOUND if right is None else int(right)
    if prefix == 0 and left + right + 1 <= k:
        k = 0
    return Neighbourhood(left, right, k, ties == "keep", None, prefix)


def supports(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    left: int | None = None,
    right: int | None = None,
    top_k: int | None = None,
    grid: tuple | None = None,
    prefix: int = 0,
) -> str | None:
    """None if the kernels serve these arguments, else the reason why not and what would."""
    if not q.is_cuda:
        return f"needs CUDA tensors, got {q.device}; impl='banded' serves every device"
    if q.is_cuda and torch.cuda.get_device_capability(q.device) < (8, 0):
        return "needs compute capability 8.0 or later; impl='banded' serves every device"
    if q.dtype not in DTYPES:
        return f"needs float32, float16 or bfloat16, got {q.dtype}; impl='reference' and impl='banded' take float64"
    if q.shape[-1] > LARGEST_HEAD:
        return f"needs head dimensions up to {LARGEST_HEAD}, got {q.shape[-1]}; impl='banded' takes any"
    if q.dtype == torch.float32 and _padded(q.shape[-1]) > 128 and torch.cuda.get_device_capability(q.device)[1] != 0:
        return "float32 heads of more than 128 need the shared memory of compute capability 8.0 or 9.0; use bfloat16"
    if max(q.shape[-2], k.shape[-2]) >= _NO_BOUND:
        return f"needs fewer than {_NO_BOUND} tokens"
    return None


def _rows_contiguous(x: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its last axis is dense, else a dense copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _padded(d: int) -> int:
    return max(16, triton.next_power_of_2(d))


def _tiles(hood: Neighbourhood, full: bool, keys: int, d: int, dtype: torch.dtype) -> Tiles:
    """Tile sizes by window and head dimension, from measurements on an H200 (benchmarks/results/attention_h200.md)."""
    span = keys if full else hood.left + hood.right + 1
    wide = _padded(d) > 128 or dtype == torch.float32
    if span <= 64 and not full and not wide:
        return Tiles(16, 16, 1, hold=True, sample=1, registers=128)
    if wide or full:
        return Tiles(32, 32, 4, hold=False, sample=1)
    return Tiles(64, 32, 4, hold=span <= 160, sample=1)


def _uses_registers(hood: Neighbourhood, keys: int) -> tuple[bool, bool]:
    """(register kernel, with tiles over all keys instead of a band)."""
    if hood.top_k == 0:
        return False, False
    if hood.banded and hood.left + hood.right + 1 <= LARGEST_WINDOW:
        return True, hood.left + hood.right + 1 >= keys
    return keys <= LARGEST_WINDOW, True


def _words(hood: Neighbourhood, full: bool, keys: int) -> int:
    return -(-keys // 32) if full else (hood.left + hood.right + 31) // 32 + 1


def selected_shape(
    q_shape: tuple, k_shape: tuple, *, left=None, right=None, top_k=None, ties="index", grid=None, prefix=0
) -> tuple[int, int, int, int]:
    """Shape (batch, heads, words, n) of the int32 selected set that `forward` saves; 0 words where none needs it."""
    batch, heads, n, _ = q_shape
    keys = k_shape[-2]
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    registers, full = _uses_registers(hood, keys)
    words = _words(hood, full, keys) if registers else (2 if hood.top_k else 0)
    return batch, heads, words, n


def selected_mask(
    selected: torch.Tensor, n_keys: int, *, left=None, right=None, top_k=None, grid=None, prefix=0, query_offset=0
):
    """Dense boolean mask (batch, heads, n, n_keys) of the bit words that the register kernel saved."""
    hood = neighbourhood(left, right, top_k, "index", grid, prefix, n_keys)
    registers, full = _uses_registers(hood, n_keys)
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


def _count_program(tiles: int) -> tuple[str | None, str | None]:
    """PTX that counts, two at a time, how many of `tiles` half-precision numbers reach the threshold (last operand)."""
    if INTERPRETED.value:
        return None, None
    names = [f"x{t}" for t in range(tiles)]
    lines = [".reg .b32 " + ", ".join(names) + ";"]
    lines += [f"set.ge.f16x2.f16x2 {name}, ${t + 1}, ${tiles + 1};" for t, name in enumerate(names)]
    while len(names) > 1:
        pairs = zip(names[::2], names[1::2], strict=False)
        lines += [f"add.f16x2 {a}, {a}, {b};" for a, b in pairs]
        names = names[::2]
    lines.append(f"mov.b32 $0, {names[0]};")
    return "{ " + " ".join(lines) + " }", ",".join(["=r"] + ["r"] * (tiles + 1))


def _scale_arguments(scale: float | torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, float, int, int, bool]:
    """Pointer, number and strides of the scale; a number needs no tensor."""
    if isinstance(scale, torch.Tensor):
        wide = scale.to(torch.float32).expand(q.shape[0], q.shape[1])
        return wide, 1.0, wide.stride(0), wide.stride(1), True
    return q, float(scale), 0, 0, False


def _bias_arguments(key_bias: torch.Tensor | None, q: torch.Tensor, keys: int) -> tuple[torch.Tensor, int, int]:
    if key_bias is None:
        return q, 0, 0
    wide = _rows_contiguous(key_bias.to(torch.float32)).expand(q.shape[0], q.shape[1], keys)
    if wide.stride(-1) != 1 and keys > 1:
        wide = wide.contiguous()
    return wide, wide.stride(0), wide.stride(1)


def _guess(hood: Neighbourhood, keys: int) -> tuple[float, float]:
    """Where the k-th of the expected number of normal scores lies, and the reciprocal of the density there."""
    number = hood.expected(keys)
    share = min(max(hood.top_k, 0.5), number - 0.5) / number if number > 1 else 0.5
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - share)
    return z, 1.0 / normal.pdf(z)


def _options(warps: int, stages: int = 1, registers: int | None = None) -> dict[str, Any]:
    # Fused multiply-adds only where a kernel writes them: scores round as in eager code.
    options: dict[str, Any] = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    if registers is not None and not INTERPRETED.value:
        options["maxnreg"] = registers
    return options


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    left: int | None = None,
    right: int | None = None,
    top_k: int | None = None,
    ties: str = "index",
    grid: tuple[int, int, int, str] | None = None,
    prefix: int = 0,
    query_offset: int = 0,
    tiles: Tiles | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Selected softmax of scale * <q, k> + key_bias applied to v.

    Args:
        q: (batch, heads, n, d), d <= 256, any strides.
        k: (batch, kv_heads, m, d); kv_heads divides heads, consecutive query heads share one.
        v: As k.
        scale: Number, or tensor that broadcasts to (batch, heads); multiplies in float32 after the product.
        key_bias: (batch, heads, m) or None; -inf marks a key that nobody hears (its k and v may hold anything).
        left: Keys before the query's position that are heard; None for all.
        right: Keys after it; None for all, 0 is causal.
        top_k: Keys selected in each row; None for all.
        ties: "index" (exactly top_k, the earlier key wins) or "keep" (all that tie with the k-th).
        grid: (height, width, radius, "chebyshev" | "manhattan") instead of a window; token prefix + r * width + c lies
            at row r, column c.
        prefix: First tokens, which hear all and are heard by all.
        query_offset: Position of query 0 among the keys.
        tiles: Tile sizes of the register kernel instead of the tabulated ones; for measurements.

    Returns:
        out (batch, heads, n, d) in the dtype of q, log_partition (batch, heads, n) float32, and the selected set for
        `backward` (int32, `selected_shape`).
    """
    batch, heads, n, d = q.shape
    keys = k.shape[-2]
    q, k, v = _rows_contiguous(q), _rows_contiguous(k), _rows_contiguous(v)
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    registers, full = _uses_registers(hood, keys)
    shape = selected_shape(q.shape, k.shape, left=left, right=right, top_k=top_k, ties=ties, grid=grid, prefix=prefix)
    out = torch.empty((batch, heads, n, d), dtype=q.dtype, device=q.device)
    log_partition = torch.empty((batch, heads, n), dtype=torch.float32, device=q.device)
    selected = torch.empty(shape, dtype=torch.int32, device=q.device)
    if out.numel() == 0 or keys == 0:
        return out.zero_(), log_partition.fill_(-math.inf), selected.zero_()
    scale_tensor, scale_value, *scale_strides, is_tensor = _scale_arguments(scale, q)
    bias, *bias_strides = _bias_arguments(key_bias, q, keys)
    z, slope = _guess(hood, keys)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides, *out.stride()[:3])
    common = {
        "TOP_K": hood.top_k,
        "KEEP_TIES": hood.keep_ties,
        "D": d,
        "DP": _padded(d),
        "HAS_BIAS": key_bias is not None,
        "SCALE_TENSOR": is_tensor,
        **hood.constants,
    }
    arrays = (q, k, v, bias, scale_tensor, out, log_partition, selected)
    numbers = (scale_value, n, keys, heads, heads // k.shape[1], query_offset)
    with torch.cuda.device(q.device) if q.is_cuda else _nothing():
        if registers:
            _launch_registers(hood, full, keys, shape[2], tiles, arrays, (*numbers, z, slope), strides, common)
        else:
            block = 64 if _padded(d) <= 128 and q.dtype != torch.float32 else 32
            warps = 4
            grid_size = (batch * heads * triton.cdiv(n, block),)
            streaming_kernel[grid_size](
                *arrays,
                *numbers,
                z,
                *strides,
                **common,
                B=block,
                T=block,
                **_options(warps, 2 if hood.top_k == 0 else 1),
            )
    return out, log_partition, selected


class _nothing:  # noqa: N801
    """Context that does nothing (tensors of the interpreter live on the CPU)."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _launch_registers(hood, full, keys, words, tiles, arrays, numbers, strides, common) -> None:
    """Launch `forward_kernel`: as many key tiles as a block of queries can hear."""
    q = arrays[0]
    batch, heads, n, d = q.shape
    tiles = tiles or _tiles(hood, full, keys, d, q.dtype)
    span = keys if full else tiles.queries + hood.left + hood.right
    count = -(-span // tiles.keys)
    if full:
        count = -(-words * 32 // tiles.keys)
    asm, constraints = _count_program(count)
    # Sampled tiles: in the middle, where every row of the block hears every key.
    sample = count if full else min(tiles.sample, count)
    begin = (count - sample + 1) // 2
    return forward_kernel[(batch * heads * triton.cdiv(n, tiles.queries),)](
        *arrays,
        *numbers,
        *strides,
        **common,
        FULL=full,
        B=tiles.queries,
        T=tiles.keys,
        NT=count,
        WORDS=words,
        HOLD=tiles.hold,
        SAMPLE_FROM=begin,
        SAMPLE_TO=begin + sample,
        NEWTON=3,
        ASM=asm,
        CONSTRAINTS=constraints,
        **_options(tiles.warps, registers=tiles.registers),
    )


def backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_partition: torch.Tensor,
    selected: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    left: int | None = None,
    right: int | None = None,
    top_k: int | None = None,
    ties: str = "index",
    grid: tuple[int, int, int, str] | None = None,
    prefix: int = 0,
    query_offset: int = 0,
    grad_log_partition: torch.Tensor | None = None,
    need_key_bias: bool = True,
    need_scale: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `forward` for the same arguments, on the set that it selected.

    Returns:
        dq, dk, dv in the dtypes of q, k, v; dkey_bias (batch, heads, m) float32 or None; and, where `need_scale`, the
        rows of the scale's gradient, (batch, heads, n) float32: the gradient of a scale per head is their sum over n
        (and batch).
    """
    batch, heads, n, d = q.shape
    keys, kv_heads = k.shape[-2], k.shape[1]
    q, k, v, grad_out, out = (_rows_contiguous(x) for x in (q, k, v, grad_out, out))
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    registers, full = _uses_registers(hood, keys)
    select = 0 if hood.top_k == 0 else (1 if registers else 2)
    full = full and select == 1
    device = q.device
    dq = torch.empty((batch, heads, n, d), dtype=q.dtype, device=device)
    dk = torch.empty((batch, kv_heads, keys, d), dtype=k.dtype, device=device)
    dv = torch.empty((batch, kv_heads, keys, d), dtype=v.dtype, device=device)
    need_key_bias = need_key_bias and key_bias is not None
    dbias = torch.empty((batch, heads, keys), dtype=torch.float32, device=device) if need_key_bias else None
    rows = torch.empty((batch, heads, n), dtype=torch.float32, device=device) if need_scale else None
    if q.numel() == 0 or keys == 0:
        empty = [x.zero_() if x is not None else None for x in (dq, dk, dv, dbias, rows)]
        return empty[0], empty[1], empty[2], empty[3], empty[4]
    delta = torch.empty((batch, heads, n), dtype=torch.float32, device=device)
    scale_tensor, scale_value, *scale_strides, is_tensor = _scale_arguments(scale, q)
    bias, *bias_strides = _bias_arguments(key_bias, q, keys)
    dlog = grad_log_partition.to(torch.float32).contiguous() if grad_log_partition is not None else delta
    common = {
        "SELECT": select,
        "D": d,
        "DP": _padded(d),
        "HAS_BIAS": key_bias is not None,
        "SCALE_TENSOR": is_tensor,
        "FULL": full,
        "WORDS": selected.shape[2],
        **hood.constants,
    }
    numbers = (scale_value, n, keys, heads, heads // kv_heads, query_offset)
    inputs = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides)
    block = _backward_block(d, q.dtype)
    shift = query_offset - hood.left if select == 1 and not full else 0
    first = -shift // block
    blocks = -(-(keys - shift) // block) - first
    with torch.cuda.device(device) if q.is_cuda else _nothing():
        backward_queries_kernel[(batch * heads * triton.cdiv(n, block),)](
            q, k, v, bias, scale_tensor, out, log_partition, selected, grad_out, dlog, delta, dq, rows if need_scale
            else delta, *numbers, *inputs, *out.stride()[:3], *grad_out.stride()[:3], *dq.stride()[:3], **common,
            HAS_DLOGZ=grad_log_partition is not None, NEED_DSCALE=need_scale, B=block, T=block, **_options(4),
        )  # fmt: skip
        backward_keys_kernel[(batch * kv_heads * blocks,)](
            q, k, v, bias, scale_tensor, log_partition, selected, grad_out, delta, dk, dv, dbias if need_key_bias else
            delta, *numbers, shift, first, blocks, *inputs, *grad_out.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            **common, NEED_DBIAS=need_key_bias, B=block, T=block, **_options(4),
        )  # fmt: skip
    return dq, dk, dv, dbias, rows


def _backward_block(d: int, dtype: torch.dtype) -> int:
    """Queries and keys a tile of the backward kernels: two accumulators of that many rows must fit the registers."""
    return 64 if _padded(d) <= 128 and dtype != torch.float32 else 32


def decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    first: int = 0,
    last: int | None = None,
    top_k: int | None = None,
    ties: str = "index",
    out: torch.Tensor | None = None,
    log_partition: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One query a head, q (batch, heads, 1, d), against a cache, k and v (batch, kv_heads, m, d).

    m * d, both rounded up to powers of 2, may reach 65 536. Hears the keys first .. last - 1 (all by default; a ring
    buffer marks unused slots by key_bias = -inf). Nothing is saved for a backward pass.
    `out` and `log_partition` may be given, so that a captured graph allocates nothing.

    Returns:
        out (batch, heads, 1, d) and log_partition (batch, heads, 1).

    Raises:
        ValueError: more keys than one program reads.
    """
    batch, heads, queries, d = q.shape
    keys = k.shape[-2]
    width = max(16, triton.next_power_of_2(keys))
    if queries != 1 or width * _padded(d) > LARGEST_CACHE:
        raise ValueError(
            f"decode expects one query and at most {LARGEST_CACHE // _padded(d)} keys, "
            f"got {queries} and {keys}; use forward"
        )
    q, k, v = _rows_contiguous(q), _rows_contiguous(k), _rows_contiguous(v)
    last = keys if last is None else last
    out = torch.empty((batch, heads, 1, d), dtype=q.dtype, device=q.device) if out is None else out
    if log_partition is None:
        log_partition = torch.empty((batch, heads, 1), dtype=torch.float32, device=q.device)
    scale_tensor, scale_value, *scale_strides, is_tensor = _scale_arguments(scale, q)
    bias, *bias_strides = _bias_arguments(key_bias, q, keys)
    warps = 4 * max(1, min(4, width * _padded(d) // 8192))
    with torch.cuda.device(q.device) if q.is_cuda else _nothing():
        decode_kernel[(batch * heads,)](
            q, k, v, bias, scale_tensor, out, log_partition,
            scale_value, keys, heads, heads // k.shape[1], first, last,
            *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides,
            TOP_K=0 if top_k is None or top_k >= keys else top_k, KEEP_TIES=ties == "keep", D=d, DP=_padded(d),
            HAS_BIAS=key_bias is not None, SCALE_TENSOR=is_tensor, M=width, **_options(8 if warps == 12 else warps),
        )  # fmt: skip
    return out, log_partition
