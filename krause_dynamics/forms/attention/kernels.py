"""The form "triton": the kernels for NVIDIA GPUs, whether they serve a call, and the way through them.

The kernels compute ``scale <q, k> + key_bias``; the key bias ``-scale |k|^2 / 2`` of a distance is computed beside
them, the query's term joins the log-partition afterwards, where it is asked for.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.forms.attention import definition
from krause_dynamics.forms.attention import kernel_operators as operators
from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.call import NEVER, Call, score_dtype
from krause_dynamics.forms.attention.lowering import Lowered, prepared, refusal
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request
from krause_dynamics.interaction.reach import UNBOUNDED, Reach

LARGEST_HEAD = 256
PATCHES = (4, 16)  # radius and prefix up to which a picture's own kernel serves, `triton.tiling.LARGEST_...`
MOST_RANDOM_KEYS = 512  # rows that one program holds, `triton.tiling.LARGEST_WINDOW`
FEWEST_PAIRS = 1 << 16  # of one cloud, from which the dense reference, some ten launches, is slower than one kernel


def machine_refusal(device: int | None, dtype: torch.dtype) -> str | None:
    """Why this machine has no kernel for such tensors; a constant while compiling, where nothing can be imported."""
    return _machine_refusal_of(device, dtype)


when_loaded("torch._dynamo", lambda dynamo: dynamo.assume_constant_result(machine_refusal))


@lru_cache(maxsize=64)
def _machine_refusal_of(device: int | None, dtype: torch.dtype) -> str | None:
    try:
        launch = steps.launch()
    except ImportError as error:
        return f"triton cannot be imported here ({error}); impl='banded' serves every device"
    example = torch.empty(1, 1, 1, 64, dtype=dtype, device=torch.device("cuda", device or 0))
    reason: str | None = launch.supports(example, example)
    return reason


def serves(call: Call) -> str | None:
    """``None`` if the kernels compute a call, else the reason."""
    q, reach = call.q, call.reach
    if call.is_differentiated_by_transform:
        return "the kernels know of torch.func vmap alone; impl='banded' also knows grad"
    if q.device.type != "cuda":
        return f"the kernels need CUDA tensors, got {q.device}; impl='banded' serves every device"
    if call.pair_bias is not None or call.segments is not None or call.dropout:
        return "the kernels take no pair bias, packed sequences or dropout; impl='banded' does"
    if reach.grid and (reach.left, reach.right) != (UNBOUNDED, UNBOUNDED):
        return "the kernels take a grid or a window, not both; impl='banded' does"
    if reach.random and (reach.first or not 0 <= call.offset <= q.shape[2] or call.k.shape[2] > MOST_RANDOM_KEYS):
        return (
            f"the kernels take random keys among {MOST_RANDOM_KEYS} at most, without prefix_tokens of a window, for "
            "queries that follow no long past; impl='banded' does"
        )
    if reach.first and (reach.top_k or reach.right != 0):
        return "the kernels take no rank beside prefix_tokens of a window; impl='banded' does"
    if reach.grid and reach.exempt > reach.prefix:
        return "the kernels exempt leading tokens of a picture from a rank, no cells; impl='banded' does"
    if reach.top_k and call.log_mass is not None and not (call.mask_only or call.ranked):
        return "the kernels would rank by mass as well; impl='banded' ranks by the score alone"
    if call.v.shape[-1] != q.shape[-1]:
        return f"the kernels need values of the keys' dimension, got {call.v.shape[-1]} and {q.shape[-1]}"
    if q.shape[-1] > LARGEST_HEAD:
        return f"the kernels take head dimensions up to {LARGEST_HEAD}, got {q.shape[-1]}; impl='banded' takes any"
    reason: str | None = machine_refusal(q.device.index, q.dtype)
    return reason


def attend(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d) and log-partition (b, h, n) of a call on a GPU."""
    reach, apart = call.reach, call._replace(joint=None)  # of passes over parts of the tokens
    if reach.top_k and reach.exempt > call.offset and not _exempts(reach):
        return _with_exempt(apart, min(reach.exempt - call.offset, call.q.shape[2]))
    if reach.first and reach.left != UNBOUNDED and call.beside is not None:
        return _with_own_first(apart, call.beside)
    return _attend(call)


def _exempts(reach: Reach) -> bool:
    """Whether one pass leaves leading rows without a rank: that of a picture, whose first rows have a program each."""
    return bool(reach.grid) and reach.grid[2] <= PATCHES[0] and reach.prefix <= PATCHES[1]


def _with_exempt(call: Call, rows: int) -> tuple[Tensor, Tensor]:
    """Leading rows without a rank, in a pass of their own, and the others with it."""
    reach = call.reach._replace(exempt=0)
    free = Reach() if reach.grid else reach._replace(top_k=0)  # those of a picture hear all
    found = _attend(call._replace(q=call.q[:, :, :rows], reach=free)), _attend(call._replace(reach=reach))
    out, log_partition = (torch.cat([a, b[:, :, rows:]], 2) for a, b in zip(*found, strict=True))
    return out, log_partition


def _with_own_first(call: Call, beside: Tensor) -> tuple[Tensor, Tensor]:
    """The window in one pass, and the first tokens of rows that begin at different keys in another."""
    reach, number = call.reach, min(call.reach.first, call.k.shape[2])
    near = _attend(call._replace(mean_only=False, reach=reach._replace(first=0), beside=None))
    mean, log_partition = Aggregate.joined([Aggregate(*near), Aggregate(*_own_first(call, beside, number))])
    return mean.to(call.q.dtype), log_partition


def _own_first(call: Call, beside: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The first tokens of each row's own sequence, where they lie before its window: by definition, n pairs each."""
    batch, m, reach = call.q.shape[0], call.k.shape[2], call.reach
    position = torch.arange(call.q.shape[2], device=call.q.device) + call.offset
    place = beside[:, 0, -1:].expand(batch, 1) + torch.arange(number, device=call.q.device)
    end = beside[:, 1, :, None].minimum((position - reach.left).clamp(min=0)[:, None])
    pairs = torch.where(place[:, None] < end, 0.0, NEVER)[:, None]
    place = place.clamp(max=m - 1)[:, None]
    k, v = (x.gather(2, place[..., None].expand(-1, x.shape[1], -1, x.shape[3])) for x in (call.k, call.v))
    mass = call.log_mass
    if mass is not None:
        mass = mass.expand(batch, -1, m)
        mass = mass.gather(2, place.expand(-1, mass.shape[1], -1))
    first = call._replace(
        k=k, v=v, log_mass=mass, pair_bias=pairs.to(score_dtype(call.q)), reach=Reach(), offset=0, beside=None
    )
    return definition.attend(first)


def _attend(call: Call) -> tuple[Tensor, Tensor]:
    """One pass of the kernels."""
    call = _spread(call)
    alone, tracked = steps.alone(call), call.is_tracked
    decodes = call.q.shape[2] == 1 and not tracked and alone
    if decodes and not _has_far_keys(call.reach):
        call = _within_reach(call)
    if call.distance and call.q.dtype == torch.float32:
        call = _centred(call, alone)
    squares = operators.squared_norms
    if not alone:
        out, log_partition, *_ = operators.kernels(
            *call.tokens, call.coefficients(spread=call.is_transformed), call.log_mass, call.reach.numbers,
            call.distance, call.offset, call.k.shape[1],
        )  # fmt: skip
    else:
        squares = squares if tracked else steps.terms().squared_norms
        once = decodes and _fits_decode(call)
        out, log_partition = steps.attend_once(call) if once else steps.attend(call, tracked=tracked)
    return out, log_partition if call.mean_only else log_partition + call.query_term(squares)


def _spread(call: Call) -> Call:
    """Masses (b, h, m), where they are tensors."""
    mass = call.log_mass
    return call if mass is None else call._replace(log_mass=mass.expand(*call.q.shape[:2], call.k.shape[2]))


def _centred(call: Call, alone: bool) -> Call:
    """float32 tokens moved near the keys that are there and finite: distances do not see it, rounding does.

    Half types stay as they are: rounding them again would change who is admitted.
    """
    q, k, mass = call.q, call.k, call.log_mass
    find = steps.terms().centre if alone else operators.centre
    centre = find(k.detach(), None if mass is None else mass.detach(), q.shape[1])
    group = q.shape[1] // k.shape[1]
    q, k = q - (centre if group == 1 else centre.repeat_interleave(group, 1)), k - centre
    return call._replace(q=q, k=k, joint=None)


def _within_reach(call: Call) -> Call:
    """What one token hears of a cache of any length, as views, and the token's position there."""
    m, mass = call.k.shape[2], call.log_mass
    first, last = call.reach.interval(call.offset, m)
    last = max(first, last)
    if last - first == m:
        return call
    k, v = call.k[:, :, first:last], call.v[:, :, first:last]
    mass = None if mass is None else mass[..., first:last]
    return call._replace(k=k, v=v, log_mass=mass, offset=call.offset - first, joint=None)


def _fits_decode(call: Call) -> bool:
    """Whether one program reads all keys; powers of two as the kernel pads them."""
    padded = [1 << (max(16, size) - 1).bit_length() for size in (call.q.shape[3], call.k.shape[2])]
    fits: bool = padded[0] * padded[1] <= steps.launch().LARGEST_CACHE
    return not _has_far_keys(call.reach) and call.k.shape[2] > 0 and fits


def _has_far_keys(reach: Reach) -> bool:
    """Whether one token hears keys beside its window."""
    return bool(reach.grid or reach.random or (reach.first and reach.left != UNBOUNDED))


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None`` if the kernels compute this interaction on these arrays, else the reason."""
    return refusal(interaction, request, serves)


def pays(interaction: Interaction, request: Request) -> bool:
    """On a GPU, for a rule that leaves most pairs out or ranks them, from the size at which a launch is worth it."""
    lowered, q, m = Lowered.of(interaction), request.queries, request.sources.shape[-2]
    if isinstance(lowered, str) or not isinstance(q, Tensor) or q.device.type != "cuda":
        return False
    sparse = lowered.reach.top_k > 0 or 2 * lowered.reach.row_length(m) <= m
    return sparse and q.shape[-2] * m >= FEWEST_PAIRS


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """The interaction lowered once, to be met by arrays like those of the request."""
    return prepared(interaction, attend, "triton")
