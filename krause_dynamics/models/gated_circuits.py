"""OV circuits of gated models: of either branch, and of both as the gate weighs them.

With the shares a_i, b_i of the gate, head h of both branches together adds  a_i W_OV m_i + b_i W'_OV m'_i  to token i,
m_i what it hears by softmax attention and m'_i by the Krause branch, and has heard  a_i m_i + b_i m'_i. Its measured
pull is the mean cosine of these two; its circuit, of weights and the gate's mean shares alone, is  a W_OV + b W'_OV, of
rank 2 d_head. Heads of one number are put together, which is a convention: the branches have projections of their own.
`checkpoints.ov_circuits` has the definitions of one branch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._arguments import COUNT, reads
from krause_dynamics.checkpoints import ov_seen, own_attention
from krause_dynamics.checkpoints.ov_circuits import WORDS, Circuit, circuits_of, listed
from krause_dynamics.checkpoints.precision import HALF
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.models.gated_record import gates

if TYPE_CHECKING:
    import xarray

BRANCHES = ("softmax", "krause")
MIXED = "mixed"
HEAD = ("sequence", "block", "head")


@reads(batch_size=COUNT)
def branch_circuits(
    model: Any,
    inputs: Any,
    *,
    batch_size: int = 1,
    progress: bool | Callable[[int, int], None] = False,
    **options: Any,
) -> xarray.Dataset:
    """OV circuits of the two branches of a gated model, and of both as its gate weighs them.

    Args:
        model: With a Krause branch (`add_krause_branch`, adapters of it) or a gate (``KrauseLM``).
        inputs: As of ``kd.analyze``.
        batch_size: Sequences per forward pass; what all heads of a block hear, of both branches, takes
            2 x batch x heads x T x d numbers, hence 1.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.
        **options: Further ones of ``kd.analyze`` that load a model or cut inputs: ``tokenizer``, ``sequence_length``,
            ``max_sequences``, ``truncate``, ``pad_token``, ``dtype``, ``part``, ``device``, ``trust_remote_code``,
            ``blocks``.

    Returns:
        Dataset over ``branch`` (softmax, krause, mixed): ``pull`` (branch, side, sequence, block, head) in [-1, 1],
        predicted and measured; ``ov_real`` and ``ov_imaginary`` (branch, block, head, eigenvalue), largest modulus
        first, NaN beyond the rank of a branch; ``ov_sign`` (branch, block, head); ``share`` (branch, sequence, block),
        what the gate gives, mean over tokens. ``kd.plots.ov_spectra`` draws one branch (``.sel(branch="krause")``), or
        several by name. NaN in blocks whose values are no affine map of what attention is given.

    Raises:
        UnsupportedModel: No gate, or attention that cannot be recorded faithfully.
        ValueError: Bad inputs, or a model in half precision.
    """
    run = Passes.of(model, inputs, attention=None, batch_size=batch_size, progress=progress, **options)
    if not gates(run.checkpoint.backbone):
        raise UnsupportedModel(
            f"{type(run.checkpoint.backbone).__name__} has no gate between two branches; kd.checkpoints.forecast has "
            "the circuits of a model of one"
        )
    dtype = next(run.checkpoint.backbone.parameters()).dtype
    if dtype in HALF:
        raise ValueError(
            f"model must be float32 for matrices that are held against what they make, which {dtype} rounds away; pass "
            "dtype='float32' where it is loaded here, or convert it with model.float()"
        )
    seen = {name: _seen_as(run, name) for name in BRANCHES}
    circuits = {name: circuits_of(*way) for name, way in seen.items()}
    pulls, shares = _Filled(len(run.inputs)), _Filled(len(run.inputs))
    for members, batch in run.batches():
        watcher = _Watcher(run, circuits)
        watcher.watch(seen, batch)
        pulls.put(members, watcher.pulls)
        shares.put(members, watcher.shares)
    return _dataset(run, circuits, pulls.values, shares.values)


Seen = tuple[Passes, Callable[[Any], bool] | None]  # a run that reads attention of one branch, and which calls are its


def _seen_as(run: Passes, branch: str) -> Seen:
    """How the attention of a branch is seen: the base's own by the registry, a call of ours by its score."""
    if branch == "softmax" and not own_attention.is_ours(run.checkpoint.backbone):
        return replace(run, path="registry"), None
    return replace(run, path="krause"), lambda call: call.distance == (branch == "krause")


@dataclass
class _Filled:
    """Numbers of all sequences, filled as batches bring them."""

    count: int
    values: np.ndarray | None = None

    def put(self, members: list[int], found: np.ndarray) -> None:
        """Numbers (branch, b, ...) of some sequences."""
        if self.values is None:
            self.values = np.full((len(found), self.count, *found.shape[2:]), np.nan)
        self.values[:, members] = found


class _Watcher:
    """What a batch shows: pulls (branch, b, block, head) and shares (branch, b, block)."""

    def __init__(self, run: Passes, circuits: dict[str, list[Circuit | None]]) -> None:
        self.run = run
        self.circuits = circuits
        self.heard: dict[str, tuple[Circuit, Tensor]] = {}  # of the running block, with what it hears (b, h, T, d)
        self.found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def watch(self, seen: dict[str, Seen], batch: Any) -> None:
        """One forward pass."""
        model = self.run.checkpoint.backbone
        entered: dict[Any, Tensor] = {}

        def keep(module: Any, args: Any, kwargs: Any) -> None:
            entered[module] = ov_seen.entering(module, args, kwargs)

        def told(branch: str) -> ov_seen.Told:
            def tell(block: int, values: Tensor, mix: ov_seen.Mix) -> None:
                circuit = self.circuits[branch][block]
                if circuit is not None:
                    given = entered[circuit.reader][:, None].expand(-1, len(circuit.value), -1, -1)
                    self.heard[branch] = circuit, mix(given)

            return tell

        with ExitStack() as stack:
            running = [
                stack.enter_context(ov_seen.watched(run, told(name), only)) for name, (run, only) in seen.items()
            ]
            for circuit in (one for circuits in self.circuits.values() for one in circuits if one is not None):
                stack.callback(circuit.reader.register_forward_pre_hook(keep, with_kwargs=True).remove)
            for gate in gates(model):
                hook = gate.register_forward_pre_hook(lambda m, both: self._weighed(running[0](), m.share(*both)))
                stack.callback(hook.remove)
            self.run.run(model, batch)
        if not self.found:
            raise UnsupportedModel(
                f"no gate of {type(model).__name__} runs, as one that is closed: the base is left, whose circuits "
                "kd.checkpoints.forecast has"
            )

    def _weighed(self, block: int | None, share: Tensor) -> None:
        """Both branches of a block have been heard, and the gate gives them shares (b, T, 2)."""
        if block is None:
            return
        heard, self.heard = self.heard, {}
        if len(heard) == len(BRANCHES):  # each has a circuit
            known = [(*heard[name], share[:, None, :, i, None]) for i, name in enumerate(BRANCHES)]
            written = torch.stack([weight * one.written(part) for one, part, weight in known]).sum(0)
            together = torch.stack([weight * part for _, part, weight in known]).sum(0)
            pulls = torch.stack([*(one.pull(part) for one, part, _ in known), ov_seen.mean_cosine(written, together)])
            self.found[block] = pulls.cpu().numpy(), _shares(share)
        else:
            self.found[block] = np.full((len(BRANCHES) + 1, len(share), 1), np.nan), _shares(share)

    @property
    def pulls(self) -> np.ndarray:
        """(branch, b, block, head)."""
        found = [self.found[block][0] for block in sorted(self.found)]
        heads = max(x.shape[-1] for x in found)
        return np.stack([np.broadcast_to(x, (*x.shape[:-1], heads)) for x in found], axis=2)

    @property
    def shares(self) -> np.ndarray:
        """(branch, b, block)."""
        return np.stack([self.found[block][1] for block in sorted(self.found)], axis=2)


def _shares(share: Tensor) -> np.ndarray:
    """Means over tokens of shares (b, T, 2), and of their sum, (3, b)."""
    told: np.ndarray = torch.cat([share, share.sum(-1, keepdim=True)], -1).double().mean(1).T.cpu().numpy()
    return told


def _mixed(parts: list[Circuit | None], shares: np.ndarray) -> Circuit | None:
    """The circuit of both branches under mean shares (2,): one of twice the rank."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    value = torch.cat([float(share) * part.value for share, part in zip(shares, known, strict=True)], -1)
    return Circuit(known[0].reader, value, torch.cat([part.output for part in known], -2))


def _dataset(
    run: Passes, circuits: dict[str, list[Circuit | None]], pulls: np.ndarray | None, shares: np.ndarray | None
) -> xarray.Dataset:
    import xarray

    assert pulls is not None
    assert shares is not None
    blocks, heads = pulls.shape[2:]
    both = [[circuits[name][block] for name in BRANCHES] for block in range(blocks)]
    mixed = [_mixed(parts, shares[:2, :, block].mean(1)) for block, parts in enumerate(both)]
    told = [listed(found, heads) for found in (*circuits.values(), mixed)]
    most = max(values.shape[-1] for _, values in told)
    values = np.stack([np.pad(x, ((0, 0), (0, 0), (0, most - x.shape[-1])), constant_values=np.nan) for _, x in told])
    predicted = np.stack([np.broadcast_to(x, pulls.shape[1:]) for x, _ in told])
    over = ("branch", "block", "head", "eigenvalue")
    sizes = np.nansum(np.abs(values), -1)
    found = {
        "pull": (("branch", "side", *HEAD), np.stack([predicted, pulls], axis=1)),
        "ov_real": (over, values.real),
        "ov_imaginary": (over, values.imag),
        "ov_sign": (over[:3], np.nansum(values.real, -1) / np.where(sizes > 0, sizes, np.nan)),
    }
    variables: Any = {name: (*one, {"long_name": WORDS[name]}) for name, one in found.items()}
    variables["share"] = (("branch", *HEAD[:2]), shares, {"long_name": "mean share that the gate gives the branch"})
    coords = {
        "branch": [*BRANCHES, MIXED], "side": ["predicted", "measured"], "block": np.arange(1, run.expected + 1),
    }  # fmt: skip
    meta = json.dumps(describe(run) | {"attention_branch": "each"}, sort_keys=True)
    return xarray.Dataset(variables, coords=coords, attrs={"meta": meta})
