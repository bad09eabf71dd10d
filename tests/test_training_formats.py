"""Formats of data: what was written is read, to the byte; what is missing, damaged or another format is said."""

from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest

from krause_dynamics.training.split import found_in, pictures
from krause_dynamics.training.tables import Data
from tests import training_data as made


def found(folder, format_, **keys):
    return found_in(Data(format=format_, path=str(folder), **keys))


def assert_part(part, number, seed, **shape):
    x, y = made.pictures(number, seed, **shape)
    np.testing.assert_array_equal(part.pixels, x)
    np.testing.assert_array_equal(part.labels, y)


def test_idx_files_plain_and_packed(tmp_path):
    read = found(made.idx(tmp_path / "d"), "idx")
    assert_part(read.train, 48, 0)
    assert_part(read.test, 24, 1)
    assert read.classes == ("0", "1", "2")
    assert set(read.checksums) == {p.name for p in (tmp_path / "d").iterdir()}
    assert all(len(digest) == 64 for digest in read.checksums.values())


@pytest.mark.parametrize("write", [made.cifar_binary, made.cifar_python])
def test_cifar_batches_binary_and_python(tmp_path, write):
    read = found(write(tmp_path / "d"), "cifar")
    for i in range(5):
        assert_part(read.train.part(slice(12 * i, 12 * i + 12)), 12, i + 1, side=32, channels=3)
    assert_part(read.test, 12, 6, side=32, channels=3)


def test_cifar_100_has_fine_classes(tmp_path):
    x, y = made.pictures(9, 1, 32, 3)
    for name in ("train", "test"):
        rows = np.concatenate([y[:, None] * 0 + 7, y[:, None], x.reshape(9, -1)], 1)
        (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())
    read = found(tmp_path, "cifar")
    np.testing.assert_array_equal(read.train.labels, y)


def test_the_pickle_of_mnist(tmp_path):
    read = found(made.mnist_pickle(tmp_path / "d"), "pickle")
    for seed, part in enumerate((read.train, read.validation, read.test)):
        assert_part(part, 24, seed)


def test_folders_of_pictures(tmp_path):
    read = found(made.picture_folders(tmp_path / "d"), "folders", size=12)
    assert read.classes == ("dark", "grey", "light")
    for part, seed in ((read.train, 0), (read.test, 1)):
        x, _ = made.pictures(12, seed, 12, 3)
        assert sorted(p.tobytes() for p in part.pixels) == sorted(p.tobytes() for p in x)
    grey = found(tmp_path / "d", "folders", size=6, channels=1)
    assert grey.train.pixels.shape == (12, 1, 6, 6)
    alone = found(tmp_path / "d" / "train", "folders", size=12)
    parts = pictures(alone, Data(format="folders", path="x", validation=0.25, test=0.25))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [6, 3, 3]


def test_parts_share_no_picture_and_follow_from_the_seed(tmp_path):
    read = found(made.idx(tmp_path / "d"), "idx")
    split = lambda **keys: pictures(read, Data(path="x", validation=12, **keys))  # noqa: E731
    parts = split()
    rows = [x.tobytes() for part in ("train", "validation") for x in parts[part].pixels]
    assert len(set(rows)) == 48
    assert len(parts["validation"]) == 12
    np.testing.assert_array_equal(split()["validation"].pixels, parts["validation"].pixels)
    assert not np.array_equal(split(split_seed=1)["validation"].pixels, parts["validation"].pixels)
    assert len(split(limit=5)["train"]) == 5


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickle_that_calls_something_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.cifar_python(tmp_path)
    for name, format_ in (("mnist.pkl", "pickle"), ("data_batch_1", "cifar")):
        (tmp_path / name).write_bytes(pickle.dumps({b"data": Harmful()}, protocol=2))
        with pytest.raises(ValueError, match="must be a pickle of numpy arrays .*mkdir, which is refused"):
            found(tmp_path, format_)
    assert not (tmp_path / "made-by-a-pickle").exists()


def bad_files():
    """(format, name of the file, its content from the right one, what the message says)."""
    cut = lambda raw: raw[:-7]  # noqa: E731
    yield "idx", "train-labels-idx1-ubyte", cut, "is damaged: its header says"
    yield "idx", "train-labels-idx1-ubyte", lambda raw: b"PNG" + raw, "must be an idx file of bytes"
    yield "idx", "train-images-idx3-ubyte.gz", cut, "is damaged or no gzip file"
    yield "idx", "train-images-idx3-ubyte.gz", lambda raw: b"text", "is damaged or no gzip file"
    yield "idx", "train-labels-idx1-ubyte", lambda raw: b"", "got nothing"
    yield "cifar", "data_batch_1", cut, "must be a pickle of numpy arrays"
    yield "cifar", "data_batch_1", lambda raw: pickle.dumps({b"rows": 1}), "must hold 'data' and 'labels'"
    yield "pickle", "mnist.pkl.gz", lambda raw: gzip.compress(pickle.dumps([1, 2])), "three pairs"
    yield "folders", "train/dark/0.png", lambda raw: raw[:40], "is damaged or no picture"
    yield "text", "train.txt", lambda raw: b"\xff\xfe\x00", "must be UTF-8 text"
    yield "jsonl", "documents.jsonl", lambda raw: raw[:-3], "line 40 of .* must be a JSON object with 'text'"
    yield "jsonl", "documents.jsonl", lambda raw: b'{"text": 3}', "must be a text, got int"


WRITE = {"idx": made.idx, "cifar": made.cifar_python, "pickle": made.mnist_pickle, "folders": made.picture_folders,
         "text": made.texts, "jsonl": made.json_lines}  # fmt: skip


@pytest.mark.parametrize(("format_", "name", "change", "message"), list(bad_files()))
def test_damaged_files_are_refused_by_name(tmp_path, format_, name, change, message):
    path = WRITE[format_](tmp_path / "d") / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        found(tmp_path / "d", format_, size=12)
    assert path.name in str(error.value)


@pytest.mark.parametrize("format_", list(WRITE))
def test_a_folder_that_is_missing_or_holds_something_else_says_what_was_expected_where(tmp_path, format_):
    with pytest.raises(FileNotFoundError, match=r"data.path must be a folder with .*; .*nowhere does not exist"):
        found(tmp_path / "nowhere", format_, size=12)
    (tmp_path / "notes.md").write_text("something else", encoding="utf-8")
    with pytest.raises((FileNotFoundError, ValueError), match=r"data.path must be a folder with .*; "):
        found(tmp_path, format_, size=12)


def test_checksums_are_held(tmp_path):
    folder = made.idx(tmp_path / "d")
    digests = found(folder, "idx").checksums
    found(folder, "idx", sha256=digests)
    name = "t10k-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=f"{name} must have the SHA-256 0000"):
        found(folder, "idx", sha256={name: "0000"})
