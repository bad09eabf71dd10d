"""Checkpoint and load: what a trained model brings, from memory and from a folder."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row
from tests.keywords.table_checkpoints_inputs import Letters

ck = kd.checkpoints
IDS = [[1, 10, 11, 12, 2]]


@cache
def tiny(kind="llama"):
    """A model by the name of its builder; transformers is imported here and not with the table."""
    pytest.importorskip("transformers")
    from tests import checkpoint_models

    return getattr(checkpoint_models, kind)()


def states(model, inputs=IDS, **options):
    return ck.record(model, inputs, attention=None, **options).positions


def same(one, other):
    np.testing.assert_allclose(one, other, atol=1e-6)


@row("kd.checkpoints.Checkpoint", "model", "llama", "gpt2", "it is that model which is recorded, as if given by itself")
def checkpoint_model(first, second):
    for kind in (first, second):
        same(states(ck.Checkpoint(tiny(kind))), states(tiny(kind)))
    assert states(ck.Checkpoint(tiny(first))).shape[0] == 4  # three blocks of one, two of the other
    assert states(ck.Checkpoint(tiny(second))).shape[0] == 3


@row("kd.checkpoints.Checkpoint", "tokenizer", None, Letters(), "it reads text into ids; without one text is refused")
def checkpoint_tokenizer(first, second):
    same(states(ck.Checkpoint(tiny(), second), "abc"), states(tiny()))
    with pytest.raises(ValueError, match="tokenizer"):
        states(ck.Checkpoint(tiny(), first), "abc")


@row("kd.checkpoints.Checkpoint", "name", "model", "of mine", "is how every result calls the model")
def checkpoint_name(first, second):
    for name in (first, second):
        assert ck.record(ck.Checkpoint(tiny(), name=name), IDS).meta["model"] == name
    assert ck.Checkpoint(tiny()).name == first


@row("kd.checkpoints.Checkpoint", "meta", {}, {"source": "a shelf"}, "the source that every result names")
def checkpoint_meta(first, second):
    for meta in (first, second):
        assert ck.record(ck.Checkpoint(tiny(), meta=meta), IDS).meta["source"] == meta.get("source", "")
    assert ck.Checkpoint(tiny()).meta == first


@row(
    "kd.checkpoints.load",
    "model",
    "llama",
    "gpt2",
    "a loaded one as it is, a folder with the same states, a Checkpoint unchanged",
)
def load_model(first, second):
    for kind in (first, second):
        loaded = ck.load(tiny(kind))
        assert loaded.model is tiny(kind)
        assert ck.load(loaded) is loaded
        with tempfile.TemporaryDirectory() as folder:
            tiny(kind).save_pretrained(folder)
            same(states(ck.load(folder)), states(tiny(kind)))
    with pytest.raises(TypeError, match="model"):
        ck.load(3)


@row(
    "kd.checkpoints.load",
    "tokenizer",
    None,
    Letters(),
    "is kept with the model and reads text; a model alone brings none",
)
def load_tokenizer(first, second):
    assert ck.load(tiny(), tokenizer=first).tokenizer is None
    assert ck.load(tiny(), tokenizer=second).tokenizer is second
    same(states(ck.load(tiny(), tokenizer=second), "abc"), states(tiny()))


@row(
    "kd.checkpoints.load",
    "dtype",
    None,
    "bfloat16",
    "of the weights: as they were saved, or rounded to 8 bits, which moves the states by that much",
)
def load_dtype(first, second):
    import torch

    with tempfile.TemporaryDirectory() as folder:
        tiny().save_pretrained(folder)
        exact, rounded = (ck.load(folder, dtype=dtype) for dtype in (first, second))
    assert (exact.model.dtype, rounded.model.dtype) == (torch.float32, torch.bfloat16)
    same(states(exact), states(tiny()))
    start = [states(given)[0] for given in (exact, rounded)]  # embeddings: weights as they are
    np.testing.assert_allclose(start[1], start[0], rtol=2**-8)
    assert np.abs(start[1] - start[0]).max() > 0


@row("kd.checkpoints.Checkpoint", "part", None, "layers.1", "which part of the model is the stack that is analysed")
def checkpoint_part(first, second):
    assert ck.Checkpoint(tiny(), part=first).backbone is tiny().base_model
    with pytest.raises(ValueError, match="part must name a model"):
        states(ck.Checkpoint(tiny(), part=second))  # a block is no model


@row("kd.checkpoints.load", "part", None, "encoder", "of an encoder-decoder: one stack, as if given by itself")
def load_part(first, second):
    model = tiny("t5")
    same(states(ck.load(model, part=second)), states(model.get_encoder()))
    with pytest.raises(kd.UnsupportedModel, match="part='encoder'"):
        states(ck.load(model, part=first))


@row(
    "kd.checkpoints.load",
    "device",
    None,
    "meta",
    "where the weights go: the CPU by default; what is no device is refused",
)
def load_device(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny().save_pretrained(folder)
        assert ck.load(folder, device=first).model.device.type == "cpu"
        assert ck.load(folder, device=second).model.device.type == "meta"
        with pytest.raises(ValueError, match="device 'nonsense'"):
            ck.load(folder, device="nonsense")


CODE = """from transformers import LlamaConfig, LlamaModel
class Config(LlamaConfig):
    model_type = 'keyword_row_load'
class Model(LlamaModel):
    config_class = Config
"""


@row(
    "kd.checkpoints.load",
    "trust_remote_code",
    False,
    True,
    "Python files of a checkpoint are refused unless trusted; then its states are those of its weights",
)
def load_trust(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny().save_pretrained(folder)
        described = json.loads((Path(folder) / "config.json").read_text())
        classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
        described |= {"model_type": "keyword_row_load", "auto_map": classes}
        (Path(folder) / "config.json").write_text(json.dumps(described))
        (Path(folder) / "code.py").write_text(CODE)
        for options in ({}, {"trust_remote_code": first}):
            with pytest.raises(ValueError, match="cannot load"):
                ck.load(folder, **options)
        same(states(ck.load(folder, trust_remote_code=second)), states(tiny()))
