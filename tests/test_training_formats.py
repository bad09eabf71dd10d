"""Formats of data: what was written is read, to the byte; what is missing, damaged or another format is said."""

from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest

from krause_dynamics.training.split import amount, found_in, pictures
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


def parts_of(change):
    """What changes the pictures and classes of each part of a packed pickle."""

    def changed(raw):
        parts = pickle.loads(gzip.decompress(raw))
        return gzip.compress(pickle.dumps(tuple(change(x, y) for x, y in parts), protocol=2), 1)

    return changed


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
    yield "folders", "train/dark/0.png", lambda raw: raw[:16] + b"\x7f\xff" * 4 + raw[24:], "is damaged or no picture"
    yield "pickle", "mnist.pkl.gz", parts_of(lambda x, y: (x * 2 - 1, y)), "values of 0 to 1 or 0 to 255, got -1 to"
    yield "pickle", "mnist.pkl.gz", parts_of(lambda x, y: (x * np.nan, y)), "values of 0 to 1 or 0 to 255, got nan"
    yield "pickle", "mnist.pkl.gz", parts_of(lambda x, y: (x[:, 1:], y)), "square pictures .* got 63 values each"
    yield "pickle", "mnist.pkl.gz", parts_of(lambda x, y: (x, y - 1)), "whole numbers from 0, got int64 such as -1"
    yield "pickle", "mnist.pkl.gz", parts_of(lambda x, y: (x, y + 0.5)), "whole numbers from 0, got float64 such as 0.5"
    yield "text", "train.txt", lambda raw: b"\xff\xfe\x00", "must be UTF-8 text"
    yield "jsonl", "documents.jsonl", lambda raw: raw[:-3], "line 40 of .* must be a JSON object with 'text'"
    yield "jsonl", "documents.jsonl", lambda raw: b'{"text": "\\ud800"}', "line 1 of .* got half a surrogate pair"
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


def test_classes_are_those_of_the_training_part(tmp_path):
    """Numbers that no picture has make no class (EMNIST letters begin at 1); what is met in tests alone is refused."""
    labels = made.idx(tmp_path / "d") / "train-labels-idx1-ubyte"
    test = tmp_path / "d" / "t10k-labels-idx1-ubyte"
    for path in (labels, test):
        raw = path.read_bytes()
        path.write_bytes(raw[:8] + bytes(10 + 5 * y for y in raw[8:]))
    read = found(tmp_path / "d", "idx")
    assert read.classes == ("10", "15", "20")
    assert_part(read.train, 48, 0)
    test.write_bytes(test.read_bytes()[:-1] + b"\x63")
    with pytest.raises(ValueError, match="test of .* has classes that train has not: 99"):
        found(tmp_path / "d", "idx")
    made.cifar_binary(tmp_path / "c")
    batch = tmp_path / "c" / "cifar-10-batches-bin" / "data_batch_2.bin"
    batch.write_bytes(b"\x0a" + batch.read_bytes()[1:])
    with pytest.raises(ValueError, match="must hold classes 0 to 9, got 10"):
        found(tmp_path / "c", "cifar")


def test_parts_of_pictures_have_one_size(tmp_path):
    made.idx(tmp_path / "d")
    made.idx(tmp_path / "e", side=12)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"):
        (tmp_path / "d" / name).write_bytes((tmp_path / "e" / name).read_bytes())
    with pytest.raises(ValueError, match=r"one size, got .* train 1 x 8 x 8, test 1 x 12 x 12"):
        found(tmp_path / "d", "idx")


def test_folders_that_are_no_classes_or_no_parts(tmp_path):
    made.picture_folders(tmp_path / "d")
    (tmp_path / "d" / "train" / ".checkpoints").mkdir()
    assert found(tmp_path / "d", "folders", size=8).classes == ("dark", "grey", "light")
    (tmp_path / "d" / "test").rename(tmp_path / "d" / "val")
    assert len(found(tmp_path / "d", "folders", size=8).validation) == 12
    (tmp_path / "d" / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match="every class must have pictures .* in empty: fill"):
        found(tmp_path / "d", "folders", size=8)
    (tmp_path / "d" / "train").rename(tmp_path / "d" / "training")
    with pytest.raises(ValueError, match=r"has val, so that its parts must be named train/, .* it has also training"):
        found(tmp_path / "d", "folders", size=8)


def test_what_programs_leave_among_the_data_is_not_read(tmp_path):
    """Resource forks of one system and folders of checkpoints begin with a point; both hold bytes that are no data."""
    made.picture_folders(tmp_path / "d")
    inside = tmp_path / "d" / "train" / "dark"
    (inside / "._0.png").write_bytes(b"\0\5\x16\7")
    (inside / ".ipynb_checkpoints").mkdir()
    (inside / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(b"")
    assert len(found(tmp_path / "d", "folders", size=8).train) == 12
    made.json_lines(tmp_path / "t")
    (tmp_path / "t" / "._documents.jsonl").write_bytes(b"\xff")
    assert len(found(tmp_path / "t", "jsonl").train) == 40


def test_a_split_that_leaves_a_class_nothing_to_learn_from_is_refused(tmp_path):
    """One picture of a class among many: some seeds hold it out, and say so; the others train on it."""
    from PIL import Image

    for name, number in (("common", 11), ("rare", 1)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    read, told = found(tmp_path, "folders", size=8), 0
    for seed in range(12):
        data = Data(format="folders", path="x", validation=0.2, test=0.2, split_seed=seed)
        if 11 in np.random.default_rng(seed).permutation(12)[:4]:  # where the split holds out the last picture
            told += 1
            with pytest.raises(ValueError, match=rf"holds out all of rare: .*data.split_seed, now {seed};"):
                pictures(read, data)
        else:
            assert (pictures(read, data)["train"].labels == 1).sum() == 1
    assert 0 < told < 12  # 4 of 12 pictures are held out


def test_a_share_of_a_few_is_one_of_them():
    assert [amount("data.test", 0.1, whole) for whole in (2, 3, 5, 20)] == [1, 1, 1, 2]
    with pytest.raises(ValueError, match="data.test must be a share below 1 or a number"):
        amount("data.test", 0.0, 20)
    with pytest.raises(ValueError, match="below 1, got 0.1"):
        amount("data.test", 0.1, 1)


def test_grey_values_of_16_bits_and_turned_pictures_are_read_as_they_look(tmp_path):
    """The library alone cuts 16 bits off at 255 and leaves the camera's turn to the reader."""
    from PIL import Image

    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    turned = Image.fromarray((deep >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(deep).save(tmp_path / name / "0.png")
        turned.save(tmp_path / name / "1.png", exif=exif)
    pixels = found(tmp_path, "folders", size=8, channels=1).train.pixels[:2, 0]
    np.testing.assert_array_equal(pixels[0], deep >> 8)
    np.testing.assert_array_equal(pixels[1], np.rot90(deep >> 8, -1))


def test_texts_keep_their_letters_and_parts_their_names(tmp_path):
    text = "one\u2028two\x85three\x0cfour"
    (tmp_path / "a.jsonl").write_text(
        "\ufeff" + '{"text": "' + text.replace("\x0c", "\\f") + '"}\r\n', encoding="utf-8"
    )
    assert found(tmp_path / "a.jsonl", "jsonl").train == [text]
    made.texts(tmp_path / "d")
    (tmp_path / "d" / "train.txt").rename(tmp_path / "d" / "trian.txt")
    with pytest.raises(ValueError, match=r"has valid.txt, test.txt, .* it has also trian.txt"):
        found(tmp_path / "d", "text")
