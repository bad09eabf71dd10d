"""Texts: tokens stand for their bytes, parts come from files or by shares, rows predict each token once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from krause_dynamics.training import train  # noqa: E402
from krause_dynamics.training.corpora import corpus  # noqa: E402
from krause_dynamics.training.split import found_in, texts  # noqa: E402
from krause_dynamics.training.tables import Data  # noqa: E402
from krause_dynamics.training.tasks import Tokens  # noqa: E402
from tests import training_data as made  # noqa: E402

pytestmark = pytest.mark.usefixtures("light_training")

MODEL = {"kind": "lm", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "window": 8,
         "attention_top_k": 4}  # fmt: skip


class Uniform(torch.nn.Module):
    """Every token has the same probability: ln V nats a token, whatever the text."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, input_ids, labels):
        return type("Output", (), {"loss": torch.tensor(math.log(self.vocabulary))})()


def table(folder, **keys):
    return Data(format="text", path=str(folder), length=16, **keys)


def test_a_uniform_model_of_bytes_needs_log2_of_the_vocabulary_a_byte(tmp_path):
    data = table(made.texts(tmp_path / "t"))
    task = Tokens(corpus(texts(found_in(data), data), data), 16, torch.device("cpu"))
    assert task.follows() == {"vocab_size": 257, "max_position_embeddings": 16}
    rows = torch.arange(task.sizes["test"])
    found = task.numbers(task.sums(Uniform(257), "test", rows))
    assert found == pytest.approx({"loss": math.log(257), "bits_per_byte": math.log2(257)})


def test_rows_of_a_part_predict_each_token_once(tmp_path):
    data = table(made.texts(tmp_path / "t"))
    task = Tokens(corpus(texts(found_in(data), data), data), 16, torch.device("cpu"))
    seen = []

    def model(input_ids, labels):
        seen.extend(input_ids[:, 1:].flatten().tolist())
        return type("Output", (), {"loss": torch.tensor(0.0)})()

    for row in range(task.sizes["test"]):
        task.sums(model, "test", torch.tensor([row]))
    whole = task.tokens["test"][1:].tolist()
    assert seen == whole[: len(seen)]
    assert len(whole) - len(seen) < 15
    inputs = task.inputs(torch.arange(task.sizes["train"]))["input_ids"]
    assert inputs.shape == (task.sizes["train"], 16)
    assert bytes(inputs[-1].tolist()).decode() in (made.WORDS * 100)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KRAUSE_DYNAMICS_CACHE", str(tmp_path / "cache"))


def test_tokens_are_kept_and_read_again_unless_the_file_is_damaged(tmp_path, monkeypatch):
    data = table(made.texts(tmp_path / "t"), tokenizer="bpe", vocabulary=300)
    parts = texts(found_in(data), data)
    first = corpus(parts, data)
    (kept,) = (tmp_path / "cache" / "tokens").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr("krause_dynamics.training.corpora._encoded", None)
        again = corpus(parts, data)
    np.testing.assert_array_equal(again.tokens["test"], first.tokens["test"])
    assert again.tokenizer.decode(again.tokens["test"]) == parts["test"][0]
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(corpus(parts, data).tokens["train"], first.tokens["train"])
    other = table(tmp_path / "t", tokenizer="bpe", vocabulary=280)
    assert corpus(parts, other).vocabulary <= 280


def test_learned_tokens_are_the_text_and_count_its_bytes(tmp_path):
    data = table(made.texts(tmp_path / "t"), tokenizer="bpe", vocabulary=300)
    parts = texts(found_in(data), data)
    found = corpus(parts, data)
    assert found.tokenizer.decode(found.tokens["test"]) == parts["test"][0]
    assert len(found.tokens["test"]) * found.bytes_a_token["test"] == pytest.approx(len(parts["test"][0].encode()))
    assert found.vocabulary <= 300
    assert found.bytes_a_token["test"] > 2, "pairs are joined"


def test_documents_are_shared_out_by_the_seed(tmp_path):
    folder = made.json_lines(tmp_path / "j")
    first, second, again = (
        texts(found_in(data), data)
        for data in (Data(format="jsonl", path=str(folder), split_seed=seed) for seed in (0, 1, 0))
    )
    assert [len(first[part]) for part in ("train", "validation", "test")] == [32, 4, 4]
    assert first == again
    assert first["test"] != second["test"]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_decoder_learns_a_text_that_repeats_itself(tmp_path, tokenizer):
    """The same 80 letters again and again: far below the entropy of their letters (4.0 bits) within 15 epochs."""
    tables = {
        "model": dict(MODEL),
        "data": {"format": "text", "path": str(made.texts(tmp_path / "t")), "length": 32, "tokenizer": tokenizer},
        "training": {"epochs": 15, "batch_size": 4, "learning_rate": 0.02},
    }
    if tokenizer == "bpe":
        tables["data"]["vocabulary"] = 280
    result = train(tables, out=tmp_path / "run")
    assert result.test["bits_per_byte"] < 2.5
    assert result.result["test_bits_per_byte"] == result.test["bits_per_byte"]
    assert (result.folder / "best" / "tokenizer.json").exists()
    assert not (result.folder / "predictions.npz").exists()


def test_a_text_too_short_for_a_row_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("short" * 5, encoding="utf-8")
    data = table(tmp_path / "a.txt")
    parts = texts(found_in(data), data)
    with pytest.raises(ValueError, match="data.length must be at most the"):
        corpus(parts, data)
    (tmp_path / "b.txt").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(ValueError, match="b.txt must be UTF-8"):
        found_in(table(tmp_path / "b.txt"))


def test_a_model_of_bytes_has_a_tokenizer_of_bytes():
    """Ids are bytes, any text comes back, and what saves itself beside the model reads itself again."""
    from krause_dynamics.training.corpora import _of_bytes

    tokenizer = _of_bytes()
    text = "a river\n\tran – to Łódź, \x00\x7f\xa0\xad\U0001f30a  twice  "
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode())
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(tokenizer) == 257
    assert tokenizer.eos_token_id == 256
