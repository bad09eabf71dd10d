"""States that are not finite are told by layer, on a GPU after the pass; masks of which is told what they are."""

import json

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import attention_call, finite
from krause_dynamics.checkpoints.attention_call import AttentionCall
from tests import checkpoint_models as models

IDS = [list(range(1, 25)), list(range(3, 27))]


def damaged():
    model = models.llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    return model


@pytest.mark.parametrize("host", ["cpu", "another"])
def test_the_first_layer_that_is_not_finite_is_named(host, monkeypatch):
    """On a GPU whoever is told of states meets the NaN before the host asks, and may fail: the layer is named still."""
    monkeypatch.setattr(finite, "HOST", host)
    with pytest.raises(finite.NotFinite, match="block 2 gives NaN"):
        kd.checkpoints.record(damaged(), IDS)
    meta = json.loads(kd.analyze(damaged(), IDS).attrs["meta"])  # which keeps what was before
    assert meta["blocks_done"] == 1
    assert meta["stopped"].startswith("block 2: weight mlp.down_proj.weight holds NaN")


def test_other_failures_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(finite, "HOST", "another")
    model = models.llama()

    def fail(*_):
        raise RuntimeError("of the model's own")

    model.model.layers[2].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="of the model's own"):
        kd.checkpoints.record(model, IDS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_extremes_of_any_dtype(dtype, monkeypatch):
    """float64 that float32 cannot hold is not finite either: it is the copy that is analysed."""
    monkeypatch.setattr(finite, "HOST", "another")
    states = finite.FiniteStates()
    state = torch.ones(1, 3, 2, dtype=dtype)
    states.add(0, state, state.float())
    states.check()
    state = state * 1e300 if dtype == torch.float64 else state / 0
    states.add(1, state, state.float())
    with pytest.raises(finite.NotFinite, match=f"block 1 gives NaN or infinity in {dtype}"):
        states.check()
    states.check()


@pytest.mark.parametrize("family", [models.llama, models.mistral, models.gemma2, models.bert])
def test_masks_that_are_not_read_are_what_they_are_said_to_be(family, monkeypatch):
    told = []
    add = attention_call.Remembered.add
    monkeypatch.setattr(attention_call.Remembered, "add", lambda self, *x: (told.append(x), add(self, *x))[1])
    kd.checkpoints.record(family(), IDS, batch_size=1)
    for mask, call in told:
        read = AttentionCall.of(mask, None, mask.shape[-1], mask.device)
        assert call.neighbourhood == read.neighbourhood
        assert call.causal == read.causal
        for name in ("visible_keys", "visible_queries", "sees_first", "seeing_first", "entropy_weights"):
            assert torch.equal(getattr(call, name), getattr(read, name)), name
    assert told


def test_a_plainly_causal_mask_is_not_read(monkeypatch):
    def read(*_):
        raise AssertionError("T^2 entries were read")

    monkeypatch.setattr(AttentionCall, "of", read)
    kd.checkpoints.record(models.llama(), IDS)
