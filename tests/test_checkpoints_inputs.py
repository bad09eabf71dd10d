"""Every accepted form of inputs ends as the same sequences of real tokens; everything else as a clear message."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import prepare
from tests import checkpoint_models as models

ROWS = ((5, 6, 7), (8, 9))


class Letters:
    """Tokenizer of one id a letter, which puts 1 before and 2 after a sequence."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids = [ord(letter) - 87 for letter in text]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 2), (2, 3, 1, 2)])
def test_arrays_of_a_file_are_rows_of_values(tmp_path, shape):
    np.save(tmp_path / "values.npy", np.arange(12, dtype=np.uint8).reshape(shape))
    assert prepare(tmp_path / "values.npy").sequences == (tuple(range(6)), tuple(range(6, 12)))
    np.save(tmp_path / "values.npy", np.zeros(shape))
    with pytest.raises(TypeError, match="must be integers"):
        prepare(tmp_path / "values.npy")


@pytest.mark.parametrize(
    "inputs",
    [
        [[5, 6, 7], [8, 9]],
        ((5, 6, 7), (8, 9)),
        {"input_ids": [[5, 6, 7], [0, 8, 9]], "attention_mask": [[1, 1, 1], [0, 1, 1]]},
        {"input_ids": np.array([[5, 6, 7], [8, 9, 0]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])},
        {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])},
        [torch.tensor([5, 6, 7]), torch.tensor([8, 9])],
    ],
)
def test_forms_of_token_ids(inputs, tmp_path):
    tokens = prepare(inputs)
    assert tokens.sequences == ROWS
    assert tokens.lengths.tolist() == [3, 2]
    if not isinstance(inputs, dict) and not torch.is_tensor(inputs[0]):
        path = tmp_path / "ids.json"
        path.write_text(json.dumps(inputs))
        assert prepare(path).sequences == ROWS


def test_one_flat_list_is_one_sequence():
    assert prepare([5, 6, 7]).sequences == (ROWS[0],)
    assert prepare(np.array([5, 6, 7])).sequences == (ROWS[0],)


def test_padding_by_its_id_is_cut_at_both_ends_only():
    assert prepare([[0, 0, 5, 0, 7], [8, 9, 0, 0]], pad_token=0).sequences == ((5, 0, 7), (8, 9))
    assert prepare([[-100, 5, 6]], pad_token=-100).sequences == ((5, 6),)


def test_text_string_and_file_and_several_texts(tmp_path):
    path = tmp_path / "page.txt"
    path.write_text("abc")
    assert prepare("abc", Letters()).sequences == prepare(path, Letters()).sequences == ((1, 10, 11, 12, 2),)
    assert prepare(["abc", "a"], Letters()).sequences == ((1, 10, 11, 12, 2), (1, 10, 2))


def test_cutting_into_sequences_keeps_special_tokens_and_counts_the_rest():
    tokens = prepare("abcdefgh", Letters(), sequence_length=5)
    assert tokens.sequences == ((1, 10, 11, 12, 2), (1, 13, 14, 15, 2))
    assert tokens.left_out == 2
    assert prepare([list(range(10))], sequence_length=4).sequences == ((0, 1, 2, 3), (4, 5, 6, 7))
    first = prepare([list(range(10))], sequence_length=4, max_sequences=1)
    assert (len(first), first.left_out) == (1, 6)


def test_longer_than_the_context_is_said_and_cut_only_when_asked():
    with pytest.raises(ValueError, match=r"7 tokens is longer than the context .*, 5 tokens; .*truncate=True"):
        prepare("abcde", Letters(), context=5)
    tokens = prepare("abcde", Letters(), context=5, truncate=True)
    assert tokens.lengths.tolist() == [5]
    assert tokens.left_out == 2


def test_batches_hold_sequences_of_one_length_and_every_sequence_once():
    rows = [[1] * n for n in (3, 5, 3, 3, 5, 1)]
    seen = []
    for members, ids in prepare(rows).batches(2):
        assert ids.shape == (len(members), len(rows[members[0]]))
        assert len(members) <= 2
        seen += members
    assert sorted(seen) == list(range(6))


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([], {}, "hold no sequence"),
        ([[1], []], {}, "sequence 1 has no tokens"),
        ([[1, 60]], {"vocabulary": 50}, r"token id 60 is outside 0\.\.49"),
        ([[1, -1]], {}, r"token id -1 .* pass pad_token=-1"),
        ([[1.5, 2.0]], {}, "list of whole numbers"),
        ([["a"], [1]], {}, "list of whole numbers"),
        (np.ones((2, 2, 2), int), {}, r"shape \(T,\) or \(B, T\)"),
        (np.ones((2, 2)), {}, "must be integers"),
        (np.ones((2, 2), bool), {}, "received True and False; a mask is passed beside them"),
        (torch.ones(2, 2, dtype=torch.bool), {}, "received True and False; a mask is passed beside them"),
        (3.5, {}, "received float"),
        ({"ids": [1]}, {}, "needs the key 'input_ids'"),
        ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 0, 1]]}, {}, "sequence 0 has holes"),
        ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 1]]}, {}, "shape of input_ids"),
        ({"input_ids": [[1, 2]], "token_type_ids": [[0, 1]]}, {}, "pairs of sentences"),
        ("text", {}, "text needs a tokenizer"),
        ([[1, 2]], {"sequence_length": 0}, "sequence_length must be at least 1, received 0"),
        ([[1, 2]], {"sequence_length": 5}, "fewer than sequence_length=5"),
        ([[1, 2]], {"sequence_length": 9, "context": 4}, "longer than the context of the model, 4"),
    ],
)
def test_bad_inputs_are_named(inputs, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        prepare(inputs, **options)


def test_what_is_loaded_or_cut_already_is_not_so_again_in_silence():
    model = models.llama()
    with pytest.raises(ValueError, match=r"sequence_length=2 .* these are 2 sequences already: pass it to .*prepare"):
        kd.analyze(model, prepare(ROWS), sequence_length=2)
    with pytest.raises(ValueError, match=r"dtype='float64' is for models that are loaded here"):
        kd.analyze(kd.checkpoints.load(model), ROWS, dtype="float64")
    assert kd.analyze(model, prepare(ROWS, sequence_length=2)).sizes["sequence"] == 2


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        prepare(tmp_path / "missing.txt")
    (tmp_path / "broken.json").write_text("[[1, 2")
    with pytest.raises(ValueError, match="is not JSON"):
        prepare(tmp_path / "broken.json")
    (tmp_path / "latin.txt").write_bytes("Gödel".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text .*convert it"):
        prepare(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match=r"names a file; pass pathlib\.Path"):
        prepare(str(tmp_path / "latin.txt"))
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        prepare("水。" * 100)  # longer in bytes than a file's name may be


def test_of_a_long_text_no_more_is_read_than_two_sequences_need():
    read = []

    class Counting(Letters):
        def __call__(self, text, **options):
            read.append(len(text))
            return super().__call__(text, **options)

    text = "inthebeginningwastheword" * 200_000
    few = prepare(text, Counting(), sequence_length=7, max_sequences=2)
    assert few.left_out == -1
    assert max(read) < len(text) // 10
    assert few.sequences == prepare(text[:30_000], Letters(), sequence_length=7, max_sequences=2).sequences
