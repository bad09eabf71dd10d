"""What heads write of what they hear: the OV circuits of a trained model, their eigenvalues, and their pull.

A head adds  W_OV m_i  to token i, with m_i = sum_k A_ik x_k what it hears and W_OV = W_V W_O a d x d matrix of rank
d_head (Elhage et al. 2021). Where its eigenvalues have positive real parts tokens are drawn towards what they hear,
where negative pushed away. Of directions m that prefer none the mean cosine of  W_OV m  and m  is, to leading order in
1/d,  tr W_OV / (sqrt(d) |W_OV|_F): the predicted pull. Measured is the mean of that cosine over the m_i of a text.

x is what enters attention, after the norm before it. Which modules make values and read heads is seen, not named: the
one whose output holds the values, and the one that is given what attention answered. Both are affine; their matrices
are what they make of unit vectors less what they make of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics import theory
from krause_dynamics.checkpoints import capture
from krause_dynamics.checkpoints.attention_pass import attend
from krause_dynamics.checkpoints.stream import Passes

WORDS = {
    "pull": "cosine of what a head writes and what it hears, mean over tokens",
    "head_mode": "degree of the perturbation that the head alone makes grow most; 0: it repels",
    "ov_real": "eigenvalues of the OV circuit, real parts: positive attracts",
    "ov_imaginary": "eigenvalues of the OV circuit, imaginary parts",
    "ov_sign": "sum of the real parts of the eigenvalues over the sum of their moduli",
}
TRIED = 8  # tokens on which numbers are told apart
Recorder = capture.AttentionRecorder


class Circuit(NamedTuple):
    """The OV circuits of the h heads of one block.

    Attributes:
        reader: Module that is given x and makes the values.
        value: W_V, (h, d, d_head).
        output: W_O, (h, d_head, d).
    """

    reader: nn.Module
    value: Tensor
    output: Tensor

    def eigenvalues(self) -> Tensor:
        """Those that are not 0 by the rank, (h, d_head) complex, largest modulus first."""
        found = torch.linalg.eigvals((self.output @ self.value).double())
        return found.gather(-1, found.abs().argsort(dim=-1, descending=True))

    def predicted_pull(self) -> Tensor:
        """Tr / (sqrt(d) Frobenius norm), (h,)."""
        value, output = self.value.double(), self.output.double()
        size = ((value.mT @ value) * (output @ output.mT)).sum((-2, -1)).sqrt()
        trace = (output @ value).diagonal(dim1=-2, dim2=-1).sum(-1)
        return trace / (value.shape[-2] ** 0.5 * size.clamp_min(torch.finfo(size.dtype).tiny))

    def pull(self, heard: Tensor) -> Tensor:
        """Mean over tokens of the cosine of W_OV m and m, for m (b, h, T, d): (b, h)."""
        written = heard @ self.value @ self.output
        return torch.nn.functional.cosine_similarity(written.double(), heard.double(), dim=-1).mean(-1)


@dataclass
class _Block:
    """What ran in a block, in order: (module, what it was given, what it answered), and its attention."""

    ran: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    value: Tensor | None = None
    output: Tensor | None = None
    before: int = 0


class _Seeing(Recorder):
    """Answers as ever, and keeps values and outputs (b, h, T, d_head) of attention."""

    def __init__(self, running: Callable[[], int | None], blocks: dict[int, _Block]) -> None:
        super().__init__(running, lambda block, found: None)
        self.blocks = blocks

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module of the model."""
        answer, nothing = super().attention(module, query, key, value, mask, **options)
        block = self.running_block()
        if block is not None:
            seen = self.blocks.setdefault(block, _Block())
            seen.value, seen.output, seen.before = value, answer, len(seen.ran)
        return answer, nothing


def circuits_of(run: Passes) -> list[Circuit | None]:
    """The circuits of every block, seen on the first sequence; None where they are no product of two matrices."""
    if run.path != "registry":
        return [None] * run.expected
    _, batch = next(run.inputs.batches(1))
    blocks: dict[int, _Block] = {}
    with _watched(run, _Seeing, blocks) as running, ExitStack() as stack:
        for part in {id(x): x for block in run.blocks for x in block.modules()}.values():
            stack.callback(part.register_forward_hook(_noting(running, blocks), with_kwargs=True).remove)
        run.run(run.checkpoint.backbone, batch)
    return [_circuit(blocks.get(block, _Block())) for block in range(run.expected)]


def pulls(run: Passes, circuits: list[Circuit | None], batch: Any) -> list[Tensor | None]:
    """Measured pull of the heads of every block on a batch, (b, h); None where there is no circuit."""
    found: dict[int, Tensor] = {}
    entered: dict[nn.Module, Tensor] = {}

    class Pulling(Recorder):
        def __init__(self, running: Callable[[], int | None], blocks: Any) -> None:
            super().__init__(running, lambda block, found: None)

        def attention(
            self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
        ) -> tuple[Tensor, None]:
            block = self.running_block()
            circuit = None if block is None else circuits[block]
            if block is not None and circuit is not None:
                x = entered[circuit.reader][:, None].expand(-1, query.shape[1], -1, -1)
                keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
                more: Any = {"softcap": options.get("softcap"), "bias": options.get("position_bias")}
                heard = attend(query, keys, x, mask, options.get("scaling"), sink=options.get("s_aux"), **more)[0]
                found[block] = circuit.pull(heard)
            return super().attention(module, query, key, value, mask, **options)

    with _watched(run, Pulling, {}), ExitStack() as stack:
        for circuit in circuits:
            if circuit is not None:
                keep = lambda module, args: entered.__setitem__(module, args[0].detach())  # noqa: E731
                stack.callback(circuit.reader.register_forward_pre_hook(keep).remove)
        if any(circuit is not None for circuit in circuits):
            run.run(run.checkpoint.backbone, batch)
    return [found.get(block) for block in range(run.expected)]


def variables(
    circuits: list[Circuit | None], measured: np.ndarray, betas: np.ndarray, dimensions: np.ndarray
) -> dict[str, Any]:
    """What is told of the circuits, as (dimensions, values) by the names of `WORDS`; empty where there is none.

    Args:
        circuits: Of every block.
        measured: Pull, (sequences, blocks, heads).
        betas: Effective beta, likewise.
        dimensions: Of the sphere that the tokens of a sequence span, (sequences,).
    """
    known = [circuit for circuit in circuits if circuit is not None]
    if not known:
        return {}
    predicted = np.full(measured.shape[1:], np.nan)
    values = np.full((*predicted.shape, known[0].value.shape[-1]), np.nan, complex)
    for block, circuit in enumerate(circuits):
        if circuit is not None:
            predicted[block], values[block] = circuit.predicted_pull().cpu(), circuit.eigenvalues().cpu()
    modes = np.full(measured.shape, np.nan)
    for place in np.argwhere(np.isfinite(betas) & np.isfinite(predicted)):
        i = tuple(place)
        draws = predicted[i[1:]] > 0
        modes[i] = theory.winning_mode(float(betas[i]), dimension=int(dimensions[i[0]])) if draws else 0
    head, over = ("sequence", "block", "head"), ("block", "head", "eigenvalue")
    return {
        "pull": (("side", *head), np.stack([np.broadcast_to(predicted, measured.shape), measured])),
        "head_mode": (head, modes),
        "ov_real": (over, values.real),
        "ov_imaginary": (over, values.imag),
        "ov_sign": (over[:2], values.real.sum(-1) / np.abs(values).sum(-1)),
    }


class _Nothing:
    def state(self, layer: int, tokens: Tensor) -> None:
        """Nothing."""

    def attention(self, block: int, found: Any) -> None:
        """Nothing."""


@contextmanager
def _watched(run: Passes, recorder: Any, blocks: dict[int, _Block]) -> Iterator[Callable[[], int | None]]:
    """A forward pass inside goes through a recorder; yields who tells which block is running."""
    model = run.checkpoint.backbone
    with replace(run, path="none", tier="none", report=None).watching(_Nothing()) as watch:
        running = lambda: watch.stream.block  # noqa: E731
        with capture.recording(model, recorder(running, blocks)):
            yield running


def _noting(running: Callable[[], int | None], blocks: dict[int, _Block]) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        block = running()
        given = args[0] if len(args) == 1 and not kwargs else None
        if block is None or not isinstance(given, Tensor) or not isinstance(answer, Tensor):
            return
        if next(module.parameters(), None) is not None and given.ndim == answer.ndim == 3:
            blocks.setdefault(block, _Block()).ran.append((module, given.detach(), answer.detach()))

    return note


def _circuit(seen: _Block) -> Circuit | None:
    """From what ran in one block."""
    if seen.value is None or seen.output is None:
        return None
    values, answer = seen.value.transpose(1, 2).flatten(2), seen.output.flatten(2)
    heads, width = seen.output.shape[2:]
    # The last of either: of a product with an adapter around it the whole, and not a norm that is before it.
    matching = (((one, _columns(one[2], values))) for one in reversed(seen.ran[: seen.before]))
    reading, columns = next(((one, found) for one, found in matching if found is not None), (None, None))
    after = reversed(seen.ran[seen.before :])
    writing = next((one for one in after if one[1].shape == answer.shape and torch.equal(one[1], answer)), None)
    if reading is None or writing is None:
        return None
    read, written = _matrix(*reading), _matrix(*writing)
    if read is None or written is None or len(read) != written.shape[1]:
        return None
    value = read[:, columns].unflatten(1, (-1, width)).transpose(0, 1)
    return Circuit(reading[0], value.repeat_interleave(heads // len(value), 0), written.unflatten(0, (heads, width)))


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
