"""What stands beside an analysis is made of the model that the analysis is of: read once, and left as it was."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import xarray
from typer.testing import CliRunner

from krause_dynamics.checkpoints import Checkpoint, load, memory
from krause_dynamics.checkpoints.precision import in_float32
from krause_dynamics.command.app import app
from tests import checkpoint_models as models

IDS = [[(7 * i + j * j) % 49 + 1 for i in range(12)] for j in range(3)]


@pytest.fixture
def folder(tmp_path, monkeypatch, light_pictures):
    monkeypatch.chdir(tmp_path)
    models.llama(2).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    return tmp_path


def called(*arguments):
    return CliRunner().invoke(app, ["analyze", "model", "--token-ids", "ids.json", "--quiet", *arguments])


def test_one_load_serves_the_sections_and_the_analysis(folder, monkeypatch):
    module = sys.modules[Checkpoint.__module__]
    loads, made = [], module.network_of
    monkeypatch.setattr(module, "network_of", lambda *given: loads.append(given[0]) or made(*given))
    sections = ("--beside", "forecast", "--beside", "tracks", "--beside", "branches")
    result = called("--report", "with.html", *sections)
    assert result.exit_code == 0, result.output
    assert len(loads) == 1
    forecast = xarray.load_dataset("with_forecast.nc")
    assert json.loads(forecast.attrs["meta"])["dtype"] == "float32"
    assert called("--report", "without.html").exit_code == 0
    one, other = (xarray.load_dataset(name) for name in ("with.nc", "without.nc"))
    assert json.loads(one.attrs["meta"])["dtype"] == "bfloat16"
    xarray.testing.assert_identical(one, other)  # the forecast left no trace in the model


def test_a_budget_must_hold_the_whole_model(folder):
    sections = ("--report", "page.html", "--beside", "tracks")
    refused = called(*sections, "--memory", "1MB")
    words = " ".join(refused.output.split())
    assert (refused.exit_code, "whole of this model" in words, "leave --beside away" in words) == (2, True, True), words
    need = memory.resident() + 2**30
    done = called(*sections, "--memory", str(need))
    assert done.exit_code == 0, done.output


def test_weights_are_float32_for_a_while_and_what_they_were_after(folder):
    network = load("model").model
    before = {name: x.clone() for name, x in network.state_dict(keep_vars=True).items()}
    network.tie = network.layers[0].mlp.up_proj.weight  # a weight of two names

    def broken():
        with in_float32(network):
            assert {x.dtype for x in network.parameters()} == {torch.float32}
            assert network.tie is network.layers[0].mlp.up_proj.weight
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    after = network.state_dict(keep_vars=True)
    for name, x in before.items():
        assert x.dtype == after[name].dtype == torch.bfloat16
        np.testing.assert_array_equal(x.detach().float(), after[name].detach().float())
