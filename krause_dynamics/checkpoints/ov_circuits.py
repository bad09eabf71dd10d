"""What heads write of what they hear: the OV circuits of a trained model, their eigenvalues, and their pull.

A head adds  W_OV m_i  to token i, with m_i = sum_k A_ik x_k what it hears and W_OV = W_V W_O a d x d matrix of rank
d_head (Elhage et al. 2021). Where its eigenvalues have positive real parts tokens are drawn towards what they hear,
where negative pushed away. Of directions m that prefer none the mean cosine of  W_OV m  and m  is, to leading order in
1/d,  tr W_OV / (sqrt(d) |W_OV|_F): the predicted pull. Measured is the mean of that cosine over the m_i of a text.

x is what enters attention, after the norm before it. Which modules make values and read heads is seen, not named, see
`ov_seen`; A is that of whatever rule attention has, softmax or Krause.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics import theory
from krause_dynamics.checkpoints import ov_seen
from krause_dynamics.checkpoints.stream import Passes

WORDS = {
    "pull": "cosine of what a head writes and what it hears, mean over tokens",
    "head_mode": "degree of the perturbation that the head alone makes grow most; 0: it repels",
    "ov_real": "eigenvalues of the OV circuit, real parts: positive attracts",
    "ov_imaginary": "eigenvalues of the OV circuit, imaginary parts",
    "ov_sign": "sum of the real parts of the eigenvalues over the sum of their moduli",
}


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

    def written(self, heard: Tensor) -> Tensor:
        """W_OV m, for m (b, h, T, d): the same."""
        return heard @ self.value @ self.output

    def pull(self, heard: Tensor) -> Tensor:
        """Mean over tokens of the cosine of W_OV m and m, for m (b, h, T, d): (b, h)."""
        return ov_seen.mean_cosine(self.written(heard), heard)


def circuits_of(run: Passes, only: ov_seen.Only = None) -> list[Circuit | None]:
    """The circuits of every block, seen on the first sequence; None where they are no product of two matrices.

    Args:
        run: The model and its inputs.
        only: Of which calls of Krause attention; None: of all.
    """
    found = ov_seen.matrices_of(run, only) if run.path in ov_seen.PATHS else [None] * run.expected
    return [None if matrices is None else Circuit(*matrices) for matrices in found]


def pulls(run: Passes, circuits: list[Circuit | None], batch: Any) -> list[Tensor | None]:
    """Measured pull of the heads of every block on a batch, (b, h); None where there is no circuit."""
    found: dict[int, Tensor] = {}
    entered: dict[nn.Module, Tensor] = {}

    def told(block: int, values: Tensor, mix: ov_seen.Mix) -> None:
        circuit = circuits[block]
        if circuit is not None:
            x = entered[circuit.reader][:, None].expand(-1, len(circuit.value), -1, -1)
            found[block] = circuit.pull(mix(x))

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        entered[module] = ov_seen.entering(module, args, kwargs)

    if any(circuit is not None for circuit in circuits):
        with ov_seen.watched(run, told), ExitStack() as stack:
            for circuit in circuits:
                if circuit is not None:
                    stack.callback(circuit.reader.register_forward_pre_hook(keep, with_kwargs=True).remove)
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
    if all(circuit is None for circuit in circuits):
        return {}
    predicted, values = listed(circuits, measured.shape[-1])
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


def listed(circuits: list[Circuit | None], heads: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted pull (blocks, heads) and eigenvalues (blocks, heads, rank) of all blocks; NaN where there are none."""
    rank = max((circuit.value.shape[-1] for circuit in circuits if circuit is not None), default=1)
    predicted, values = np.full((len(circuits), heads), np.nan), np.full((len(circuits), heads, rank), np.nan, complex)
    for block, circuit in enumerate(circuits):
        if circuit is not None:
            found = circuit.eigenvalues().cpu().numpy()
            predicted[block], values[block, :, : found.shape[-1]] = circuit.predicted_pull().cpu(), found
    return predicted, values
