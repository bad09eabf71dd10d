"""One new token against keys and values in a ring: written in one place, read where they lie, in one kernel."""

from __future__ import annotations

from torch import Tensor

from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.kernels import machine_refusal
from krause_dynamics.forms.attention.slots import Ring


def refusal(call: Call, ring: Ring) -> str | None:
    """Why no kernel answers a token from a ring, or ``None``.

    Args:
        call: The new token as query, key and value (b, h or h_kv, 1, d).
        ring: What it meets.
    """
    q, reach = call.q, call.reach
    if q.shape[2] != 1:
        return f"a ring answers one new token, got {q.shape[2]}"
    if call.is_tracked or not steps.alone(call):
        return "a ring passes no gradients on, and is not known to compilers and transforms"
    if call.pair_bias is not None or call.log_mass is not None or call.dropout:
        return "a ring takes no masses, pair biases or dropout"
    if (
        reach.random
        or reach.grid
        or reach.exempt
        or reach.right != 0
        or (reach.left + 1, reach.first) != (ring.window, ring.first)
    ):
        return "a ring holds a window of the past and its first tokens, and knows no exempt rows"
    if q.device.type != "cuda":
        return f"the kernels need CUDA tensors, got {q.device}"
    reason: str | None = machine_refusal(q.device.index, q.dtype)
    return reason or steps.launch().ring_refusal(ring.k, call.v.shape[3])


def attend(call: Call, ring: Ring, norm: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output (b, h, 1, d) and log-partition (b, h, 1) of a token, which is written to its slot.

    The token is not counted: ``ring.seen`` is the caller's.

    Args:
        call: As in `refusal`.
        ring: Likewise.
        norm: Coefficients (1 or b, 1 or h) of the keys' squared norms beside a dot product; or ``None``.
        valid: Boolean (b, 1), false where the token is padding; or ``None``.
    """
    answer: tuple[Tensor, Tensor] = steps.launch().ring_step(
        call.q, call.k, call.v, ring, scale=call.scale, norm=norm, valid=valid, distance=call.distance, reach=call.reach
    )
    return answer
