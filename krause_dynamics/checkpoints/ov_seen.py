"""Which modules of a block make the values of its attention, and which read its heads: seen as they run, not named.

The one whose output holds the values, and the one that is given what attention answered. Both are affine; their
matrices are what they make of unit vectors less what they make of 0. ``nn.MultiheadAttention`` projects by functions,
without modules of its own that run; there the matrices are its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import capture, own_attention, torch_calls
from krause_dynamics.checkpoints.attention_pass import attend
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.forms.attention.call import Call

PATHS = ("registry", "krause", "calls")  # ways in which attention is read, of which calls are told
TRIED = 8  # tokens on which numbers are told apart
Mix = Callable[[Tensor], Tensor]  # values of every head (b, h, T, d) -> their means by the weights of a call
Told = Callable[[int, Tensor, Mix], None]  # (block, values (b, key heads, T, d_head), mix)
Only = Callable[[Call], bool] | None  # which calls of Krause attention are looked at; None: all
Matrices = tuple[nn.Module, Tensor, Tensor]  # reader, W_V (h, d, d_head), W_O (h, d_head, d)


@dataclass
class _Block:
    """What ran in a block, in order: (module, what it was given, what it answered), and its attention.

    Attributes:
        ran: Modules.
        values: Of attention, (b, h, T, d_head).
        heard: What the first tokens heard, likewise.
        before: How many ran before attention.
    """

    ran: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    values: Tensor | None = None
    heard: Tensor | None = None
    before: int = 0


def matrices_of(run: Passes, only: Only = None) -> list[Matrices | None]:
    """Of every block who reads x and makes values, and both matrices, on the first sequence; None where there are none.

    Values of key heads are repeated for the heads that share them.
    """
    _, batch = next(run.inputs.batches(1))
    blocks: dict[int, _Block] = {}

    def told(block: int, values: Tensor, mix: Mix) -> None:
        seen = blocks.setdefault(block, _Block())
        seen.values, seen.heard, seen.before = values, mix(values)[:, :, :TRIED], len(seen.ran)

    with watched(run, told, only) as running, ExitStack() as stack:
        for part in {id(x): x for block in run.blocks for x in block.modules()}.values():
            stack.callback(part.register_forward_hook(_noting(running, blocks), with_kwargs=True).remove)
        run.run(run.checkpoint.backbone, batch)
    modules = [run.blocks[i % len(run.blocks)] for i in range(run.expected)]
    found = [blocks.get(i, _Block()) for i in range(run.expected)]
    return [_matrices(seen) or _of_multihead(module, seen) for module, seen in zip(modules, found, strict=True)]


def entering(module: nn.Module, args: Any, kwargs: Any) -> Tensor:
    """What a reader is given, (b, T, d)."""
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    time_major = isinstance(module, nn.MultiheadAttention) and not module.batch_first
    return x.detach().transpose(0, 1) if time_major else x.detach()


@contextmanager
def watched(run: Passes, told: Told, only: Only = None) -> Iterator[Callable[[], int | None]]:
    """A forward pass inside tells of attention as it is asked for; yields who tells which block is running."""
    with replace(run, path="none", tier="none", report=None).watching(_Nothing()) as watch, ExitStack() as stack:
        running = lambda: watch.stream.block  # noqa: E731
        if run.path == "registry":
            stack.enter_context(capture.recording(run.checkpoint.backbone, _Telling(running, told)))
        else:
            heard = lambda block, call: _of_ours(block, call, told, only)  # noqa: E731
            stack.enter_context(own_attention.listening(running, heard))
        if run.path == "calls":
            stack.enter_context(torch_calls.listening(running, lambda block, call: _of_torch(block, call, told)))
        yield running


class _Telling(capture.AttentionRecorder):
    """Answers for transformers' attention as ever, and tells of it."""

    def __init__(self, running: Callable[[], int | None], told: Told) -> None:
        super().__init__(running, lambda block, found: None)
        self.telling = told

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module of the model."""
        block = self.running_block()
        if block is not None:
            more: Any = {"softcap": options.get("softcap"), "bias": options.get("position_bias")}
            more |= {"sink": options.get("s_aux")}
            keys, values = (_for_heads(x, query.shape[1]) for x in (key, value))
            self.telling(block, values, lambda x: attend(query, keys, x, mask, options.get("scaling"), **more)[0])
        return super().attention(module, query, key, value, mask, **options)


def _of_ours(block: int, call: Call, told: Told, only: Only) -> None:
    if only is not None and not only(call):
        return
    with torch.no_grad():
        told(block, _for_heads(call.v, call.q.shape[1]), lambda x: own_attention.mean_of_call(call, x))


def _of_torch(block: int, call: dict[str, Any], told: Told) -> None:
    with torch._C.DisableTorchFunction(), torch.no_grad():
        query, value = torch_calls.four_axes(call["query"]), torch_calls.four_axes(call["value"])
        told(block, _for_heads(value, query.shape[1]), lambda x: torch_calls.mean_of_call(call, x))


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Of vectors (b, h, T, d), mean over tokens, (b, h)."""
    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=-1).mean(-1)


def _for_heads(x: Tensor, heads: int) -> Tensor:
    return x.repeat_interleave(heads // x.shape[1], 1)


class _Nothing:
    def state(self, layer: int, tokens: Tensor) -> None:
        """Nothing."""

    def attention(self, block: int, found: Any) -> None:
        """Nothing."""


def _noting(running: Callable[[], int | None], blocks: dict[int, _Block]) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        block = running()
        given = args[0] if len(args) == 1 and not kwargs else None
        if block is None or not isinstance(given, Tensor) or not isinstance(answer, Tensor):
            return
        if next(module.parameters(), None) is not None and given.ndim == answer.ndim == 3:
            blocks.setdefault(block, _Block()).ran.append((module, given.detach(), answer.detach()))

    return note


def _matrices(seen: _Block) -> Matrices | None:
    """From what ran in one block."""
    if seen.values is None or seen.heard is None:
        return None
    values, heard = (x.transpose(1, 2).flatten(2) for x in (seen.values, seen.heard))
    heads, width = seen.values.shape[1], seen.values.shape[3]
    # The last of either: of a product with an adapter around it the whole, and not a norm that is before it.
    matching = ((one, _columns(one[2], values)) for one in reversed(seen.ran[: seen.before]))
    reading, columns = next(((one, found) for one, found in matching if found is not None), (None, None))
    writing = next((one for one in reversed(seen.ran[seen.before :]) if _is_given(one[1], heard)), None)
    if reading is None or columns is None or writing is None:
        return None
    read, written = _matrix(*reading), _matrix(*writing)
    if read is None or written is None or len(read) != written.shape[1]:
        return None
    value = read[:, columns].unflatten(1, (heads, width)).transpose(0, 1)
    return reading[0], value, written.unflatten(0, (heads, width))


def _is_given(given: Tensor, heard: Tensor) -> bool:
    """Whether a module was given what the heads heard, side by side; up to the rounding of another sum of it."""
    if given.shape[-1] != heard.shape[-1] or given.shape[1] < heard.shape[1]:
        return False
    return torch.allclose(given[:, : heard.shape[1]], heard.to(given.dtype), rtol=1e-4, atol=1e-5 * _size(heard))


def _size(x: Tensor) -> float:
    return float(x.abs().max())


def _of_multihead(block: nn.Module, seen: _Block) -> Matrices | None:
    """The matrices of the one ``nn.MultiheadAttention`` of a block, where it is what was seen to attend."""
    found = [part for part in block.modules() if isinstance(part, nn.MultiheadAttention)]
    if len(found) != 1 or seen.values is None or seen.values.shape[1] != found[0].num_heads:
        return None
    (module,) = found
    joint = module.in_proj_weight
    value = module.v_proj_weight if joint is None else joint[2 * module.embed_dim :]
    heads = (module.num_heads, -1)
    read = value.detach().T.unflatten(1, heads).transpose(0, 1)
    return module, read, module.out_proj.weight.detach().T.unflatten(0, heads)


def _columns(made: Tensor, values: Tensor) -> Tensor | None:
    """Which numbers of what a module made are the values, all of them; None: they are not among them."""
    alike = (made[0, :TRIED].T[:, None] == values[0, :TRIED].T[None]).all(-1)  # (made, values)
    return alike.int().argmax(0) if bool(alike.any(0).all()) else None


def _matrix(module: nn.Module, given: Tensor, made: Tensor) -> Tensor | None:
    """The matrix (in, out) of a module; None where it is not affine, by what it made of what it was given."""
    units = torch.eye(given.shape[-1], dtype=given.dtype, device=given.device)[None]
    with torch.no_grad():
        offset = module(torch.zeros_like(units[:, :1]))
        found: Tensor = module(units) - offset
        again = given[:1] @ found[0] + offset
    close = torch.allclose(again, made[:1], rtol=1e-3, atol=1e-3 * float(made[:1].abs().max()))
    return found[0] if close else None
