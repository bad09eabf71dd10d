"""Sections 4, 7 and 10: a decoder of SmolLM2-135M's shape at random weights, and the trained one."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.sphere import mean_cosine
from krause_dynamics import theory

TOKENS, LAYERS = 512, 4


@lru_cache(maxsize=2)
def attention(kind: str) -> np.ndarray:
    """Weights (blocks, heads, T, T) of one context of random ids: the first four blocks, random or trained."""
    from krause_dynamics import checkpoints

    if kind == "trained":
        model = checkpoints.load("smollm2-135m").model
        size, tokens = model.config.vocab_size, 128
    else:
        model, tokens = random_decoder(), TOKENS
        size = model.config.vocab_size
    ids = np.random.default_rng(4).integers(0, size, (1, tokens))
    run = checkpoints.record(model, ids, attention="weights")
    return np.asarray(run.extras["attention"])[:, 0].astype(float)


def random_decoder():  # type: ignore[no-untyped-def]
    """Four blocks of the shape of SmolLM2-135M as transformers initialises them (normal, 0.02)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_attention_heads=9,
            num_key_value_heads=3,
            num_hidden_layers=LAYERS,
            vocab_size=2048,
            rope_theta=100_000.0,
        )  # fmt: skip
    ).eval()


@check(
    10,
    source="2603.10123",
    setting="4 random blocks of SmolLM2's shape, 512 ids; share of the last row of the product before x, H = 2, 4",
    tolerance=0.02,
)
def lost_at_birth_in_a_decoder() -> Comparison:
    """Lost in the middle at birth: attention of an untrained decoder multiplies like causal means."""
    from scipy.integrate import quad

    predicted, measured, ends = [], [], (0.1, 0.25, 0.5, 0.75)
    mean = attention("random").mean(axis=1)
    for hops in (2, 4):
        heard = np.linalg.multi_dot([*mean[:hops][::-1], np.eye(TOKENS)])[-1]
        measured += [float(heard[: int(end * TOKENS)].sum()) for end in ends]
        predicted += [
            quad(lambda x, h=hops: float(theory.causal_influence(positions=x, layers=h)[0]), 0.0, end)[0]
            for end in ends
        ]
    return compare(predicted, measured)


def _heads(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score deviation over sqrt(log T), and participation, of the last 32 rows of every head: (blocks, heads) each."""
    rows = weights[..., -32:, :]
    visible = np.tril(np.ones(weights.shape[-2:]))[-32:] > 0
    scores = np.where(visible, np.log(np.maximum(rows, 1e-38)), np.nan)
    beta = np.nanstd(scores, axis=-1) / np.sqrt(np.log(visible.sum(axis=-1)))
    return beta.mean(axis=-1), np.sum(rows**2, axis=-1).mean(axis=-1)


def _against_energy_model(kind: str) -> Comparison:
    weights = attention(kind) if kind == "trained" else attention(kind)[:2]
    beta, seen = _heads(weights)
    expected = [theory.expected_participation(tokens=weights.shape[-1] - 16, beta=float(b)) for b in beta.ravel()]
    frozen = np.mean(beta > theory.freezing_beta())
    return compare(
        np.mean(expected),
        np.mean(seen),
        f"beta {beta.min():.2f} to {beta.max():.2f}, {frozen:.0%} of heads frozen",
    )


@check(
    7,
    source="2505.24333",
    setting="2 random blocks of SmolLM2's shape, 512 ids; mean over 18 heads, each at its own beta",
    tolerance=0.005,  # a tenth of what the spread of scores makes
    kind="relative",
)
def participation_of_a_random_decoder() -> Comparison:
    """Entropy collapse: heads of an untrained decoder are as spread as Gaussian scores of their deviation."""
    return _against_energy_model("random")


@check(
    7,
    source="2505.24333",
    setting="SmolLM2-135M, 128 random ids; mean over 270 heads, each at its own beta",
    tolerance=0.05,
    kind="relative",
    slow=True,
    disputed="scores of trained heads are not Gaussian: the first token stands above all, a sink",
)
def participation_of_a_trained_decoder() -> Comparison:
    """Entropy collapse: heads of a trained decoder as a random energy model."""
    return _against_energy_model("trained")


@lru_cache(maxsize=2)
def states(kind: str) -> np.ndarray:
    """States (blocks + 1, T, d): text through the trained decoder, or random ids through a random one."""
    from krause_dynamics import checkpoints

    if kind == "trained":
        loaded = checkpoints.load("smollm2-135m")
        page = (files("krause_dynamics.data") / "genesis.txt").read_text(encoding="utf-8")
        model, ids = loaded.model, np.array(loaded.tokenizer(page)["input_ids"][:200])[None]
    else:
        model, ids = random_decoder(), np.random.default_rng(4).integers(0, 2048, (1, 128))
    x = np.asarray(checkpoints.record(model, ids).positions, dtype=float)
    return x.reshape(len(x), -1, x.shape[-1])


def _mean_cosines(x: np.ndarray) -> np.ndarray:
    """Mean cosine of pairs of tokens, the first left out (it is a sink), for every block."""
    return mean_cosine(kd.Sphere().retract(x[:, 1:]))


@check(
    4,
    source="2605.07772",
    setting="SmolLM2-135M on 200 tokens of text; 4 random blocks; sign of the change of the mean cosine, last block",
    tolerance=0.0,
    slow=True,
)
def training_pushes_tokens_apart() -> Comparison:
    """Untrained blocks draw tokens together, every one; the last block of a trained decoder pushes them apart."""
    trained, untrained = (_mean_cosines(states(kind)) for kind in ("trained", "random"))
    change = [trained[-1] - trained[-2], *np.diff(untrained)]
    note = f"trained {trained[-2]:.2f} to {trained[-1]:.2f}, untrained {untrained[0]:.2f} to {untrained[-1]:.2f}"
    return compare([-1, 1, 1, 1, 1], np.sign(change), note)


@check(
    7,
    source="2510.06477; bound derived",
    setting="SmolLM2-135M on 200 tokens of text; blocks in which the first token has over 0.9 of all squared norms",
    tolerance=0.01,
    slow=True,
)
def massive_token_of_a_trained_decoder() -> Comparison:
    """Massive token of a trained decoder: it makes the first singular value, as its bound says, in most blocks."""
    predicted, measured = [], []
    for x in states("trained"):
        squares = np.sum(x**2, axis=1)
        if squares[0] > 0.9 * squares.sum():
            direction = x[0] / np.sqrt(squares[0])
            along = float(np.sum((x[1:] @ direction) ** 2) / squares[1:].sum())
            rest = float(squares[1:].sum())
            predicted.append(theory.leading_share_bound(massive=float(squares[0]), others=rest, alignment=along))
            spectrum = np.linalg.svd(x, compute_uv=False) ** 2
            measured.append(spectrum[0] / spectrum.sum())
    return compare(
        predicted, measured, f"{len(measured)} of 30 blocks; share {min(measured):.2f} to {max(measured):.2f}"
    )
