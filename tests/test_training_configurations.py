"""Every configuration that ships trains, on a little data in the same file format and with a smaller model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("peft")

from krause_dynamics.training import TrainingConfiguration, train  # noqa: E402
from krause_dynamics.training.configuration import tables_of  # noqa: E402
from tests import training_data as made  # noqa: E402

pytestmark = pytest.mark.usefixtures("light_training")

FILES = sorted((Path(__file__).parents[1] / "evidence" / "configurations").glob("*.toml"))
SMALL = {
    "kvit": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    "kswin": {"hidden_size": 8, "depths": [1, 1], "heads": [1, 2]},
    "karm": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "window": 8, "attention_top_k": 4},
    "lm": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "window": 8, "attention_top_k": 4},
    "gated": {},
}
FORMATS = {
    "idx": made.idx, "cifar": made.cifar_binary, "pickle": made.mnist_pickle, "folders": made.picture_folders,
    "text": made.texts,
}  # fmt: skip


def base(folder):
    """A small Llama, which knows the 257 tokens of bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes)).save_pretrained(folder)
    return folder


def shrunk(path, folder):
    """The tables of a file, with another place, fewer weights and a step or two."""
    tables = tables_of(path)
    kind, data = tables["model"]["kind"], tables["data"]
    tables["model"] |= SMALL[kind]
    if kind == "gated":
        tables["model"]["base"] = str(base(folder / "base"))
    if kind == "karm" and data["format"] == "cifar":
        data["limit"] = 2  # of 3072 values each
    number = {"number": 2} if kind == "karm" and data["format"] == "cifar" else {}
    data |= {"path": str(FORMATS[data["format"]](folder / "data", **number)), "validation": 4}
    if data["format"] == "text":
        learned = data.get("tokenizer") == "bpe"
        data |= {"length": 16} | ({"vocabulary": 270} if learned else {"tokenizer": "bytes"})
    tables["training"] |= {"epochs": 1, "batch_size": 2 if kind == "karm" else 8}
    tables["evaluation"] = {"limit": 2}
    return tables


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_a_configuration_trains(path, tmp_path, monkeypatch):
    monkeypatch.setenv("KRAUSE_DYNAMICS_CACHE", str(tmp_path / "cache"))
    TrainingConfiguration.read(path)
    result = train(shrunk(path, tmp_path), out=tmp_path / "run")
    assert 0 < result.test["loss"] < 10
    assert result.result["trained_parameters"] > 0
    assert result.result["multiply_adds_executed"] > 0
    assert list((tmp_path / "run" / "best").glob("*.safetensors"))
    assert not list((tmp_path / "run").rglob("*.bin")), "no pickles"


def test_an_adapter_learns_alone_and_its_base_stays(tmp_path):
    pytest.importorskip("peft")
    path = next(path for path in FILES if path.stem == "krause-smollm2")
    tables = shrunk(path, tmp_path)
    tables["training"] |= {"epochs": 2, "learning_rate": 0.01}
    result = train(tables, out=tmp_path / "run")
    assert result.result["trained_parameters"] < result.result["parameters"]
    from transformers import AutoModelForCausalLM

    from krause_dynamics.models import load_adapter

    pretrained = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = load_adapter(pretrained, tmp_path / "run" / "best")
    x = torch.arange(16)[None] + 97
    assert model(input_ids=x, labels=x).loss.isfinite()
    tables["model"] |= {"branch": False}
    with pytest.raises(ValueError, match="model.window belongs to a Krause branch"):
        train(tables, out=tmp_path / "other")
    tables["model"] = {"kind": "gated", "base": "nowhere"}
    with pytest.raises(ValueError, match="model.base must be 'smollm2-135m' or the folder"):
        train(tables, out=tmp_path / "third")


def test_the_configuration_of_the_page_trains(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "how_to" / "train.md").read_text(encoding="utf-8")
    (tmp_path / "cats.toml").write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    made.picture_folders(tmp_path / "pictures")
    tables = tables_of(tmp_path / "cats.toml")
    tables["model"] |= {"hidden_size": 12, "num_hidden_layers": 1}
    tables["training"] |= {"epochs": 1, "batch_size": 4}
    result = train(tables, out=tmp_path / "run")
    for name in ("best", "last", "metrics.csv", "result.json", "predictions.npz", "state.safetensors"):
        assert (tmp_path / "run" / name).exists()
        assert f"`{name}" in page
    assert result.result["classes"] == ["dark", "grey", "light"]
