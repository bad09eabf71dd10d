"""Published sizes and weights: what is given, what is read, and what is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from krause_dynamics.models import KARM, convert, from_published, published
from tests import published_modules as theirs
from tests.keywords.row import row
from tests.model_sizes import words

KEYS = {"window": 9, "attention_top_k": 4, "image_size": 3, "num_channels": 3}


@row("kd.models.published", "name", "karm-mnist", "karm-cifar10", "784 = 28 x 28 tokens, or 3072 = 32 x 32 x 3")
@row("kd.models.published", "changes", {"score": "dot"}, {"window": 64}, "keys that are named change, others stay")
def settings(first, second):
    if isinstance(first, str):
        assert [published(name).max_position_embeddings for name in (first, second)] == [784, 3072]
        return
    plain = published("karm-mnist").to_dict()
    for changes in (first, second):
        assert published("karm-mnist", **changes).to_dict() == {**plain, **changes}


@row("kd.models.from_published", "state", "karm", "vit", "names tell the module; a file without known names is refused")
def state(first, second):
    assert type(from_published(theirs.karm_state(), **KEYS)) is KARM
    with pytest.raises(ValueError, match="does not say num_attention_heads"):
        from_published(theirs.vit_state())
    with pytest.raises(ValueError, match="no published module"):
        from_published({first: torch.ones(1)})


@row("kd.models.from_published", "keys", 4, 9, "k beyond the window is the window alone")
def keys(first, second):
    x, state = words(27, vocabulary=6), theirs.karm_state()
    with torch.no_grad():
        for k in (first, second):
            expected = theirs.karm_forward(state, x, 2, 9, k).float()
            got = from_published(state, **{**KEYS, "attention_top_k": k})(x).logits
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)  # float32, ranks aside


@row("kd.models.convert", "path", "weights.pt", "weights.pth", "the same weights from either ending")
@row("kd.models.convert", "keys", "window", "attention_top_k", "each is asked for by name")
def path(first, second):
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("weights.pt", "weights.pth")]
        for file in files:
            torch.save(theirs.karm_state(), file)
        models = [convert(file, **KEYS) for file in files]
        assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
        for name in ("window", "attention_top_k"):
            with pytest.raises(ValueError, match=f"does not say {name}"):
                convert(files[0], **{k: v for k, v in KEYS.items() if k != name})


@row("kd.models.convert", "folder", None, "written", "the folder holds the model, or none is written")
def folder(first, second):
    with tempfile.TemporaryDirectory() as place:
        file, target = Path(place) / "weights.pt", Path(place) / second
        torch.save(theirs.karm_state(), file)
        model = convert(file, first, **KEYS)
        assert not target.exists()
        convert(file, target, **KEYS)
        back = KARM.from_pretrained(target)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))
