"""The pair as files and folders, and what is looked at in it."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from evidence import logs, pair, twins, weights  # noqa: E402
from krause_dynamics.command.app import app  # noqa: E402
from krause_dynamics.models import KARM, KARMConfig  # noqa: E402
from tests import training_data  # noqa: E402


def model_of(score, support):
    torch.manual_seed(0)
    return KARM(KARMConfig(
        image_size=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, window=8, attention_top_k=4,
        score=score, support=support, sigma=1.5,
    )).eval()  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """The pair, untrained, as `evidence.run` brings it back and as it is kept."""
    models = {"softmax": model_of("dot", "full"), "krause": model_of("gaussian", "window+top_k")}
    for name, model in models.items():
        model.save_pretrained(tmp_path / "run" / name)
        file = pair.RUNS[name].replace("+", "_")
        weights.keep_weights(tmp_path / "run" / name, tmp_path / "back" / f"{file}.safetensors")
    pair.unpack(tmp_path / "back", tmp_path / "kept")
    return models, tmp_path / "kept"


def test_weights_come_back_in_half_precision_and_numbers_of_the_score_as_they_are(made):
    models, kept = made
    for name, model in models.items():
        back, before = pair.load(name, kept).state_dict(), model.state_dict()
        assert back.keys() == before.keys()
        for key, x in back.items():
            assert x.dtype == torch.float32
            halved = x.ndim >= 2 and "log_sigma" not in key
            torch.testing.assert_close(x, before[key], rtol=2**-8 if halved else 0.0, atol=0.0)
        assert (kept / name / "model.safetensors").stat().st_size < 5e6


def test_the_shipped_pair_predicts_as_well_as_its_log_says():
    digits = torch.from_numpy(pair.digits().astype(np.int64).reshape(pair.DIGITS, -1))
    kept = {row["run"]: row["test"] for row in logs.read(logs.FOLDER, "pair", "results")}
    for name, run in pair.RUNS.items():
        with torch.no_grad():
            logits = pair.load(name)(input_ids=digits).logits[:, :-1]
        nats = (
            torch.nn.functional.cross_entropy(logits.transpose(1, 2), digits[:, 1:], reduction="none").double().sum(1)
        )
        bits = (nats + np.log(256)) / digits.shape[1] / np.log(2)  # as the log counts the first value
        # These sixteen are some of the test digits: four standard errors of their mean.
        assert float(bits.mean()) == pytest.approx(kept[run], abs=4 * float(bits.std()) / pair.DIGITS**0.5)
        assert float(bits.mean()) < 2.0  # 16 levels, all alike: 4 bits


def test_the_command_completes_digits_by_the_shipped_pair(tmp_path):
    out, source = tmp_path / "completed.png", pair.FOLDER / "digits.npy"
    answer = CliRunner().invoke(app, ["complete", str(pair.FOLDER / "krause"), str(source), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    drawn, given = np.load(out.with_suffix(".npy"))[..., 0], pair.digits()
    np.testing.assert_array_equal(drawn[:, :7], given[:, :7])
    assert (drawn[:, 7:] != given[:, 7:]).any()
    # What is drawn has ink, as digits have: within a half of theirs.
    assert drawn[:, 7:].mean() == pytest.approx(given[:, 7:].mean(), rel=0.5)


def test_digits_are_the_first_of_the_test_part(tmp_path):
    training_data.mnist_pickle(tmp_path / "mnist", 20, 28)
    pair.halve(tmp_path / "mnist", tmp_path / "half")
    pair.keep_digits(tmp_path / "half", tmp_path / "kept")
    found = pair.digits(tmp_path / "kept")
    whole, _ = training_data.pictures(20, 2, 28)
    mean = whole[: pair.DIGITS, 0].reshape(-1, 14, 2, 14, 2).mean((2, 4))
    assert found.shape == (pair.DIGITS, 14, 14)
    assert np.abs(found - mean / 16).max() < 1.1  # whole levels below, and floats between the file and its pixels


def test_a_model_is_looked_at_beside_its_controls(made):
    _, kept = made
    pictures = np.random.default_rng(0).integers(0, 256, (3, 6, 6)).astype(np.uint8)
    found = {name: twins.looked_at(pair.load(name, kept), pictures) for name in pair.RUNS}
    for cases in found.values():
        assert list(cases) == list(twins.CONTROLS)
        trained, untrained, shuffled = (twins.row("", control, cases[control]) for control in twins.CONTROLS)
        # Values in another order are other tokens; fresh weights are other weights.
        assert trained["entropy"] != shuffled["entropy"]
        assert trained["order_parameter"] != untrained["order_parameter"]
    # Beyond a window of 8 of 36 values, most queries cannot see the first: divided by all queries, its share is less.
    krause = twins.row("", "", found["krause"]["trained"])
    assert krause["published_importance_first"] < krause["importance_first"]
    figure = twins.draw(found)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert "softmax: synchronization" in titles
    assert "krause: sinks" in titles
