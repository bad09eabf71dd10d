"""The pair as files and folders, and what is looked at in it."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from evidence import pair, twins, worker  # noqa: E402
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
        worker.keep_weights(tmp_path / "run" / name, tmp_path / "back" / f"{file}.safetensors")
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


def test_digits_are_the_first_of_the_test_part(tmp_path):
    training_data.mnist_pickle(tmp_path / "mnist", 20)
    pair.keep_digits(tmp_path / "mnist", tmp_path / "kept")
    found = pair.digits(tmp_path / "kept")
    assert found.shape == (pair.DIGITS, 8, 8)
    expected, _ = training_data.pictures(20, 2)
    assert np.abs(found.astype(int) - expected[: pair.DIGITS, 0]).max() <= 1  # floats between


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
