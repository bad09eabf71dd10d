"""Adapters of a small Llama through the runner of the evidence, and sinks of heads whose weights are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from evidence import experiments, language, logs  # noqa: E402
from evidence import run as command  # noqa: E402
from krause_dynamics.models import add_krause_branch  # noqa: E402

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "one", "more", "dog", "ran", "to", "an", "old", "house")


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=300, **sizes)).eval()


@pytest.fixture
def data(tmp_path):
    """Novels of a few words, and two questions of each kind."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 3000), ("valid", 500), ("test", 500)):
        path = tmp_path / "novels" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join(rng.choice(WORDS, count)) + "\n", encoding="utf-8")
    (tmp_path / "evaluations").mkdir()
    rows = {
        "lambada_openai": [{"context": "the cat sat on a", "continuation": "mat"}] * 2,
        "blimp": [{"good": "the dog ran", "bad": "the dog runned", "paradigm": name} for name in ("a", "b")],
    }
    for name, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "evaluations" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_adapters_learn_and_are_asked(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KRAUSE_DYNAMICS_CACHE", str(tmp_path / "cache"))
    llama().save_pretrained(tmp_path / "base")
    whole = experiments.EXPERIMENTS["smollm2"]
    tables = {
        **whole.tables, "model": {**whole.tables["model"], "base": str(tmp_path / "base")},
        "data": {**whole.tables["data"], "tokenizer": "bpe"},
    }  # fmt: skip
    monkeypatch.setitem(experiments.EXPERIMENTS, "smollm2", replace(whole, tables=tables))
    out = tmp_path / "out"
    command.main([
        "smollm2", "--small", "--runs", "2", "--data", str(data), "--out", str(out), "--work", str(tmp_path / "work"),
    ])  # fmt: skip
    lora, both = logs.read(out, "smollm2", "results")
    assert (lora["arm"], both["arm"]) == ("lora", "krause+lora")
    for row in (lora, both):
        assert 0.0 < row["test"] < 10.0
        assert 1.0 < row["lambada_perplexity"] < 1e4
        assert row["blimp"] in (0.0, 1.0)  # one question, asked twice
        assert row["trained_parameters"] < row["parameters"]
    assert "first_krause" not in lora
    assert 0.0 < both["gate_krause"] < 1.0
    assert both["published_krause"] <= both["first_krause"]
    assert json.loads(lora["sigma"]) == []
    assert json.loads(both["sigma"]) == pytest.approx([5.5, 5.5], rel=0.1)  # one a layer, hardly moved
    capsys.readouterr()


def test_sinks_of_uniform_weights_are_harmonic_numbers():
    """Queries of 0 weigh all that they hear alike: of query i the first token gets 1/(i + 1), while it is heard."""
    n, window = 24, 6
    model = llama()
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.k_proj.weight)
    ids = torch.arange(n)[None]
    harmonic = np.cumsum(1.0 / np.arange(1, n + 1))
    plain = language.sinks(model, iter([ids, ids + 1]))
    # Float32 weights; the mean of 1/(i + 1) over the queries is below 0.3, so that no head is a sink.
    assert plain == pytest.approx(
        {"first_softmax": harmonic[-1] / n, "published_softmax": harmonic[-1] / n, "sink_rate_softmax": 0.0}, rel=1e-6
    )
    found = language.sinks(add_krause_branch(model, window=window, top_k=window, sigma=1.0), iter([ids]))
    gate = found.pop("gate_krause")
    assert 0.0 < gate < 1.0
    assert found == pytest.approx(
        {
            **plain, "first_krause": harmonic[window - 1] / window, "published_krause": harmonic[window - 1] / n,
            "sink_rate_krause": 1.0,  # 2.45 / 6 = 0.41 of those that can hear it
        }, rel=1e-6,
    )  # fmt: skip
