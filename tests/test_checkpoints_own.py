"""Analysis of models whose attention is ours: decoders of the package, registered names, any module with its blocks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import record
from krause_dynamics.nn import KrauseAttention, sparse_weights
from tests import checkpoint_models as models

IDS = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7]]


def dense(layer, x):
    """Weights (heads, T, T) of a layer on tokens x (T, dim), by the public function."""
    q, k, _ = layer.project(x[None])
    index, weight = sparse_weights(q, k, layer.neighbourhood, sigma=layer.sigma, score=layer.score)
    full = torch.zeros(*weight.shape[:3], x.shape[0] + 1)
    return full.scatter(-1, index.where(index >= 0, torch.tensor(x.shape[0])), weight)[0, ..., :-1]


def language_model(**options):
    torch.manual_seed(0)
    config = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = kd.models.KrauseLM(kd.models.KrauseLMConfig(**config, window=4, attention_top_k=3, **options))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(20.0)
    return model.eval()


def test_a_decoder_of_the_package():
    model = language_model()
    run = record(model, IDS, attention="weights")
    assert run.meta["attention_path"] == "krause"
    with torch.no_grad():
        states = model(torch.tensor(IDS), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(run.positions, torch.stack(states), rtol=1e-5, atol=1e-5)
        for i, layer in enumerate(model.layers):
            expected = dense(layer.attention, layer.norm1(states[i][0])).numpy()
            np.testing.assert_allclose(run.extras["attention"][i, 0], expected, atol=1e-5)
    weights = run.extras["attention"][:, 0].astype(float)
    i = np.arange(10)
    reach = (i[:, None] >= i) & (i[:, None] - i < 4)  # of the window: who is not among the 3 nearest could have been
    np.testing.assert_allclose(run.extras["importance"][:, 0], weights.sum(2) / reach.sum(0), atol=1e-5)
    np.testing.assert_allclose(
        run.extras["published_importance"][:, 0], weights.sum(2) / (10 - np.arange(10)), atol=1e-5
    )
    keys = reach.sum(1)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(3) / np.log(np.maximum(keys, 2))
    np.testing.assert_allclose(run.extras["entropy"][:, 0], (entropy * (keys > 1)).sum(2) / (keys > 1).sum(), atol=1e-5)


def test_the_report_of_a_krause_model():
    found = kd.analyze(language_model(), IDS)
    assert found.sizes["head"] == 4
    assert any("calls of Krause attention" in line for line in kd.report.legend(found))
    kd.report.findings(found)


def test_softmax_by_our_layer_is_softmax_by_the_registry():
    """The rule with a dot product over all earlier tokens, by its own path and by that of softmax attention."""
    model = models.llama()
    expected = record(model, IDS, attention="weights")
    kd.nn.huggingface.register_attention("krause_dot_for_a_test", score="dot")
    model.set_attn_implementation("krause_dot_for_a_test")
    run = record(model, IDS, attention="weights")
    assert run.meta["attention_path"] == "krause"
    for name in ("attention", "importance", "published_importance", "entropy", "first_token_score"):
        np.testing.assert_allclose(run.extras[name], expected.extras[name], atol=2e-5)
    np.testing.assert_array_equal(run.extras["strongest_key"], expected.extras["strongest_key"])


class Residual(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Bare(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Residual(inner()) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_any_module_with_its_blocks():
    torch.manual_seed(0)
    model = Bare(lambda: KrauseAttention(8, 2, kd.Window(4) & kd.TopK(2)))
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    run = record(model, x, blocks=list(model.blocks), attention="weights", batch_size=2)
    assert run.positions.shape == (4, 3, 6, 8)
    with torch.no_grad():
        state = torch.from_numpy(x)
        for i, block in enumerate(model.blocks):
            np.testing.assert_allclose(run.extras["attention"][i, 1], dense(block.inner, state[1]), atol=1e-5)
            state = block(state)
            np.testing.assert_allclose(run.positions[i + 1], state, atol=1e-5)
    found = kd.analyze(model, x, blocks=list(model.blocks))
    assert found.sizes["layer"] == 4
    assert found.sizes["block"] == 3


def test_a_module_without_attention_of_ours_has_states_alone():
    model = Bare(lambda: torch.nn.Linear(8, 8))
    x = torch.randn(2, 5, 8)
    with pytest.raises(kd.UnsupportedModel, match="block 1 made 0 calls"):
        record(model, x, blocks=list(model.blocks))
    assert record(model, x, blocks=list(model.blocks), attention=None).positions.shape == (4, 2, 5, 8)
    assert record(model, x, attention=None).positions.shape == (4, 2, 5, 8)


def test_what_happens_to_weights_after_a_call_is_not_guessed():
    model = Bare(lambda: KrauseAttention(8, 2, causal=True, sink=True))
    with pytest.raises(kd.UnsupportedModel, match="asks for its log-partition, as a learned sink does"):
        record(model, torch.randn(1, 5, 8), blocks=list(model.blocks))
    with pytest.raises(kd.UnsupportedModel, match="made 2 calls"):
        record(language_model(gate=True), IDS)
    with pytest.raises(ValueError, match="attention='eager' is for models"):
        record(language_model(), IDS, attention="eager")


def test_nobody_watches_afterwards():
    from krause_dynamics.nn.attention import WATCHERS

    model = language_model()
    model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(model, IDS)
    assert WATCHERS == []
    assert isinstance(model, hf.PreTrainedModel)


def test_a_saved_model_of_this_package_is_analysed_without_loading_its_room_first(tmp_path):
    """As ``krause analyze FOLDER`` and ``kd.compare`` do in a new process."""
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = kd.models.KrauseLMConfig(**sizes, intermediate_size=32, window=4, attention_top_k=3)
    kd.models.KrauseLM(config).save_pretrained(tmp_path / "model")
    code = (
        "import numpy as np, krause_dynamics as kd; "
        f"found = kd.analyze({str(tmp_path / 'model')!r}, np.arange(12)[None] % 20); print(dict(found.sizes)['layer'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "3", done.stderr
