"""kd.analyze on tiny models with random weights, against what transformers itself returns with eager attention."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import krause_dynamics as kd
from tests.keywords.letters import Letters
from tests.keywords.row import row

IDS = [list(range(1, 21)), list(range(5, 17)), [7, 3, 7, 3, 9, 9, 9, 1, 2, 3, 4, 5]]


@cache
def tiny(kind, seed=0):
    """A model by the name of its builder; transformers is imported here and not with the table."""
    pytest.importorskip("transformers")
    from tests import checkpoint_models

    return getattr(checkpoint_models, kind)(seed)


def analyze(inputs=IDS, model="llama", **options):
    return kd.analyze(tiny(model), inputs, **options)


@cache
def plain():
    return analyze()


@cache
def theirs(model, ids):
    """Hidden states (layers, T, d) and attention (blocks, heads, T, T) as transformers returns them."""
    import torch

    from tests import checkpoint_models

    with torch.no_grad():
        out = checkpoint_models.eager(tiny(model))(
            torch.tensor([ids]), output_attentions=True, output_hidden_states=True
        )
    states = np.stack([state[0].double().numpy() for state in out.hidden_states])
    return states, np.stack([block[0].double().numpy() for block in out.attentions])


def importance(model, ids):
    """alpha_k: mean attention to key k over the queries that see it (a causal mask), (blocks, heads, T)."""
    attention = theirs(model, tuple(ids))[1]
    return attention.sum(axis=-2) / np.arange(len(ids), 0, -1)


def same(one, other, atol=1e-5):
    """Two Datasets agree, float32 arithmetic in another order allowed for."""
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], other[name], atol=atol, rtol=1e-4)


def equals_theirs(kind, inputs):
    """Order parameter and importance of the first token, from the states and weights of transformers."""
    found = analyze(inputs, kind)
    for i, ids in enumerate(inputs):
        states = theirs(kind, tuple(ids))[0][:-1]  # theirs end with the final norm
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        order, here = np.linalg.norm(unit.mean(axis=1), axis=-1), found.sel(sequence=i)
        np.testing.assert_allclose(here.order_parameter.sel(tokens="all")[:-1], order, atol=1e-5)
        np.testing.assert_allclose(here.importance_first, importance(kind, ids)[..., 0], atol=1e-5)


@row("kd.analyze", "model", "llama", "gpt2", "order parameter and sink of that model's own states and attention")
def model(first, second):
    for kind in (first, second):
        equals_theirs(kind, IDS[:2])


@row("kd.analyze", "inputs", IDS[:1], IDS[1:], "order parameter and sink of those very sequences")
def inputs(first, second):
    for sequences in (first, second):
        equals_theirs("llama", sequences)
    same(analyze(np.array(second)), analyze(second))


@row(
    "kd.analyze",
    "tokenizer",
    None,
    Letters(),
    "text becomes its ids, special ones included; without one text is refused",
)
def tokenizer(first, second):
    same(analyze("abcab", tokenizer=second), analyze([[1, 10, 11, 12, 10, 11]]))
    with pytest.raises(ValueError, match="tokenizer"):
        analyze("abcab", tokenizer=first)


@row("kd.analyze", "sequence_length", None, 8, "pieces of that many tokens are sequences; the rest is left out")
def sequence_length(first, second):
    pieces = [IDS[0][:8], IDS[0][8:16]]
    same(analyze(IDS[:1], sequence_length=second), analyze(pieces))
    assert analyze(IDS[:1], sequence_length=first)["length"].values.tolist() == [20]


@row("kd.analyze", "max_sequences", None, 2, "the first ones, with the numbers that they have among all")
def max_sequences(first, second):
    same(analyze(max_sequences=second), analyze(IDS[:second]))
    assert analyze(max_sequences=first).sizes["sequence"] == 3


LONG = [[3 + (7 * i) % 40 for i in range(70)]]


@row("kd.analyze", "truncate", False, True, "beyond the context of 64 tokens: refused, or the numbers of the first 64")
def truncate(first, second):
    same(analyze(LONG, truncate=second), analyze([LONG[0][:64]]))
    for options in ({}, {"truncate": first}):
        with pytest.raises(ValueError, match="truncate"):
            analyze(LONG, **options)


@row("kd.analyze", "pad_token", None, 0, "padding at either end changes no number")
def pad_token(first, second):
    padded = [[0, 0, *IDS[1]], [*IDS[2], 0, 0]]
    same(analyze(padded, pad_token=second), analyze(IDS[1:]))
    assert analyze(padded, pad_token=first)["length"].values.tolist() == [14, 14]


@row("kd.analyze", "eps", (0.1, 0.2, 0.3, 0.5), (0.05, 0.12), "per cent of sequences whose importance exceeds it")
def eps(first, second):
    alpha = np.stack([importance("llama", ids)[..., 0] for ids in IDS])
    for thresholds in (first, second):
        found = analyze(eps=thresholds)
        np.testing.assert_array_equal(found.eps, thresholds)
        expected = 100 * (alpha[..., None] > np.array(thresholds)).mean(axis=0)
        np.testing.assert_allclose(found.sink_rate, expected)
    np.testing.assert_array_equal(plain().eps, first)


@row(
    "kd.analyze",
    "radii",
    (0.2, 0.8),
    (1.0, 1.3, 1.5),
    "connected components of the directions at a chord of at most the radius, by scipy",
)
def radii(first, second):
    states = theirs("llama", tuple(IDS[0]))[0][:-1]
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    for given in (first, second):
        found = analyze(IDS[:1], radii=given).clusters.sel(sequence=0, tokens="all")
        np.testing.assert_array_equal(found.radius, given)
        for layer, u in enumerate(unit):
            chord = np.linalg.norm(u[:, None] - u, axis=-1)
            counts = [connected_components(chord <= radius)[0] for radius in given]
            assert found[layer].values.tolist() == counts


@row("kd.analyze", "min_queries", 8, 1, "the strongest key is the argmax of alpha over keys that so many queries see")
def min_queries(first, second):
    for least in (first, second):
        found = analyze(min_queries=least)
        for i, ids in enumerate(IDS):
            alpha = importance("llama", ids)[..., : len(ids) - least + 1]
            np.testing.assert_array_equal(found.strongest_key[i], alpha.argmax(axis=-1))
    assert (analyze(min_queries=21).strongest_key == -1).all()
    same(plain(), analyze(min_queries=first))


@row(
    "kd.analyze",
    "measures",
    "default",
    ["spectrum", "length"],
    "those asked for and no others, with the numbers that all of them together give",
)
def measures(first, second):
    everything = analyze(measures="all")
    for name, values in plain().data_vars.items():
        assert name in everything
        np.testing.assert_allclose(values, everything[name], atol=1e-6, err_msg=name)
    assert set(analyze(measures=first).data_vars) == set(plain().data_vars) < set(everything.data_vars)
    few = analyze(measures=second)
    assert set(few.data_vars) == {"spectrum", "length"}
    for i, ids in enumerate(IDS):
        values = np.linalg.svd(theirs("llama", tuple(ids))[0][1:3], compute_uv=False)
        np.testing.assert_allclose(few["spectrum"].values[i, 1:3, 0, : len(ids)], values / values[:, :1], atol=1e-5)
    with pytest.raises(ValueError, match="measures must be 'default', 'all' or names"):
        analyze(measures=["rank"])


@row(
    "kd.analyze",
    "controls",
    (),
    "repeated",
    "analyses stand beside the one as given, which is unchanged; tokens repeated have one direction",
)
def controls(first, second):
    same(analyze(controls=first), plain())
    both = analyze(controls=second)
    same(both.sel(control="as given"), plain())
    np.testing.assert_allclose(both["order_parameter"].sel(control=second, tokens="all"), 1.0, atol=1e-6)


@row("kd.analyze", "rng", 0, 1, "one seed gives one control, another seed another one; the analysis as given stays")
def rng(first, second):
    one, again, other = (analyze(controls="random", rng=seed) for seed in (first, first, second))
    np.testing.assert_array_equal(one.entropy, again.entropy)
    np.testing.assert_array_equal(one.entropy[0], other.entropy[0])
    assert not np.allclose(one.entropy[1], other.entropy[1])


@row(
    "kd.analyze",
    "attention",
    "statistics",
    "eager",
    "weights that transformers returns give the same Dataset; None leaves attention out and keeps the states",
)
def attention(first, second):
    recorded = analyze(attention=first)
    same(recorded, kd.analyze(eager_copy(), IDS, attention=second))
    states = analyze(attention=None)
    assert {"importance_first", "sink_rate"} & set(states.data_vars) == set()
    np.testing.assert_allclose(states.order_parameter, recorded.order_parameter, atol=1e-6)


def eager_copy():
    from tests import checkpoint_models

    return checkpoint_models.eager(tiny("llama"))


class Heard:
    """A callback that remembers its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, done, total):
        self.calls.append((done, total))


@row("kd.analyze", "batch_size", 8, 1, "so many sequences of one length at a time; the numbers do not depend on it")
def batch_size(first, second):
    for size, done in ((first, [2, 3]), (second, [1, 2, 3])):  # of lengths 20, 12 and 12
        heard = Heard()
        same(analyze(batch_size=size, progress=heard), plain())
        assert [calls for calls, _ in heard.calls] == done


@row(
    "kd.analyze",
    "progress",
    False,
    Heard(),
    "is told after each batch how many sequences of how many are done, to the end",
)
def progress(first, second):
    second.calls.clear()
    same(analyze(progress=second, batch_size=1), analyze(progress=first, batch_size=1))
    assert second.calls == [(1, 3), (2, 3), (3, 3)]


@row("kd.analyze", "blocks", None, "layers", "given by hand they are those that the search finds; fewer end earlier")
def blocks(first, second):
    by_hand = list(getattr(tiny("llama").model, second))
    same(analyze(blocks=by_hand), analyze(blocks=first))
    assert analyze(blocks=by_hand[:2], attention=None).sizes["layer"] == 3


@row("kd.analyze", "dtype", None, "float64", "of the weights of a folder: those of the file, or as asked")
def dtype(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        for given, stored in ((first, "float32"), (second, "float64")):
            found = kd.analyze(folder, IDS, dtype=given)
            assert json.loads(found.attrs["meta"])["dtype"] == stored
            same(found, plain(), atol=1e-4)


@row("kd.analyze", "part", None, "model", "a stack of blocks inside the model is analysed as if given by itself")
def part(first, second):
    composed = kd.checkpoints.Checkpoint(Shell(tiny("llama")))
    same(kd.analyze(composed, IDS, part=second), plain())
    with pytest.raises(ValueError, match="part must name a model inside"):
        analyze(part="nowhere")
    same(analyze(part=first), plain())


class Shell:
    """A composed model: a stack of blocks under a name."""

    def __init__(self, model):
        self.model, self.config = model, model.config

    def get_submodule(self, name):
        return getattr(self, name)


@row(
    "kd.analyze",
    "device",
    None,
    "cpu",
    "a model of a folder runs there, with the numbers of the loaded one; what is no device is refused",
)
def device(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        for where in (first, second):
            same(kd.analyze(folder, IDS, device=where), plain())
        with pytest.raises(ValueError, match="device 'nonsense'"):
            kd.analyze(folder, IDS, device="nonsense")


CODE = """from transformers import LlamaConfig, LlamaModel
class Config(LlamaConfig):
    model_type = 'keyword_row'
class Model(LlamaModel):
    config_class = Config
"""


@row(
    "kd.analyze",
    "trust_remote_code",
    False,
    True,
    "Python files of a checkpoint are refused unless trusted; then its numbers are those of its weights",
)
def trust_remote_code(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        described = json.loads((Path(folder) / "config.json").read_text())
        described |= {"model_type": "keyword_row", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
        (Path(folder) / "config.json").write_text(json.dumps(described))
        (Path(folder) / "code.py").write_text(CODE)
        for options in ({}, {"trust_remote_code": first}):
            with pytest.raises(ValueError, match="cannot load"):
                kd.analyze(folder, IDS, **options)
        same(kd.analyze(folder, IDS, trust_remote_code=second), plain())


@row(
    "kd.analyze",
    "memory",
    None,
    "2GB",
    "a budget changes no number, whether all of the model fits or one block at a time; 1 byte is refused",
)
def memory(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder, max_shard_size="20KB")
        for budget in (first, second):
            same(kd.analyze(folder, IDS, memory=budget), plain())
        with pytest.raises(ValueError, match="memory must be at least .* received 1:"):
            kd.analyze(folder, IDS, memory=1)


@row(
    "kd.analyze",
    "checkpoint",
    None,
    "half.npz",
    "the file changes no number, is there afterwards, and serves no other inputs",
)
def checkpoint(first, second):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / second
        same(analyze(checkpoint=first), plain())
        assert not path.exists()
        for _ in range(2):
            same(analyze(checkpoint=path), plain())
            assert path.exists()
        with pytest.raises(ValueError, match="another run"):
            analyze(IDS[:1], checkpoint=path)


PREDICTIONS = "kd.checkpoints.predictions"


@row(PREDICTIONS, "dataset", 0, 1, "measured sides are those of the Dataset, predicted ones of who is within reach")
def predicted_dataset(first, second):
    for seed in (first, second):
        found = kd.analyze(tiny("llama", seed), IDS)
        sides = kd.checkpoints.predictions(found)
        for name in ("participation", "importance_first"):
            np.testing.assert_array_equal(sides[name].sel(side="measured"), found[name])
        harmonic = [np.sum(1 / np.arange(1, len(ids) + 1)) / len(ids) for ids in IDS]
        np.testing.assert_allclose(sides["importance_first"].sel(side="predicted")[:, 0, 0], harmonic, rtol=1e-6)


@row(PREDICTIONS, "causal", True, None, "where all hear all, the first token's even share is 1/T, which is told")
def predicted_causal(first, second):
    found = kd.analyze(tiny("bert"), IDS)
    for causal, expected in ((first, np.sum(1 / np.arange(1, 21)) / 20), (False, 1 / 20), (second, 1 / 20)):
        sides = kd.checkpoints.predictions(found, causal=causal)
        np.testing.assert_allclose(sides["importance_first"].sel(side="predicted")[0], expected, rtol=1e-6)
    both = sides["importance_first"]
    np.testing.assert_allclose(both.sel(side="measured"), both.sel(side="predicted"), rtol=0.3)  # random weights
