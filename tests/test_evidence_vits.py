"""What is looked at in trained vision transformers, on heads whose weights are known."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from evidence import vit_figures, vits, weights  # noqa: E402
from evidence.looked import closed_classes  # noqa: E402
from krause_dynamics.models import KrauseViT, KrauseViTConfig  # noqa: E402

TOKENS, TOP_K, BLOCKS = 10, 3, 2  # CLS and 3 x 3 patches


def model_of(score, support):
    torch.manual_seed(0)
    return KrauseViT(KrauseViTConfig(
        image_size=12, num_channels=1, num_labels=3, hidden_size=16, num_hidden_layers=BLOCKS, num_attention_heads=2,
        score=score, support=support, attention_top_k=TOP_K, attention_top_k_last=None, window=2, norm="pre", sigma=2.0,
    )).eval()  # fmt: skip


@pytest.fixture
def pixels():
    return np.random.default_rng(0).standard_normal((3, 1, 12, 12)).astype(np.float32)


def test_shuffled_pictures_have_the_same_patches_in_another_order(pixels):
    def patches(x):
        return sorted(x[0, 0].reshape(3, 4, 3, 4).transpose(0, 2, 1, 3).reshape(9, 16).tolist())

    found = vits.shuffled(pixels, 4, np.random.default_rng(1))
    assert patches(found) == patches(pixels)
    assert not np.array_equal(found, pixels)


def test_keys_are_counted_exactly(pixels):
    """Softmax hears all tokens and top-k k of them; where queries are 0, those that are heard share evenly."""
    for score, support, heard in (("dot", "full", TOKENS), ("gaussian", "top_k", TOP_K)):
        found = vits.Looked.at(model_of(score, support), pixels)
        np.testing.assert_array_equal(found.heard(), heard)
        assert (found.effective() <= heard + 1e-4).all()
        assert found.sigma == ([] if score == "dot" else pytest.approx([2.0] * BLOCKS))
    model = model_of("dot", "full")
    for layer in model.layers:
        torch.nn.init.zeros_(layer.attention.q_proj.weight)
        torch.nn.init.zeros_(layer.attention.q_proj.bias)
    np.testing.assert_allclose(vits.Looked.at(model, pixels).effective(), TOKENS, rtol=1e-5)


def test_groups_are_as_many_as_the_eigenvalue_one():
    """Of a row-stochastic matrix the eigenvalue 1 has one eigenvector for each closed class (Perron-Frobenius)."""
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(60):
        heard = rng.random((9, 9)) < 0.12
        np.fill_diagonal(heard, rng.random(9) < 0.5)
        heard[~heard.any(1), 0] = True
        weights = np.where(heard, rng.uniform(0.1, 1.0, heard.shape), 0.0)
        weights /= weights.sum(1, keepdims=True)
        # Rounding spreads a multiple eigenvalue by the root of 1e-16 at most where blocks are coupled.
        ones = (np.abs(np.linalg.eigvals(weights) - 1.0) < 1e-6).sum()
        assert closed_classes(heard) == ones
        counts.add(int(ones))
    assert counts > {1, 2}
    assert closed_classes(np.ones((5, 5), bool)) == 1
    assert closed_classes(np.eye(5, dtype=bool)) == 5


def test_both_models_are_drawn_beside_their_controls(pixels, tmp_path):
    found = {}
    for name, words in (("softmax", ("dot", "full")), ("krause", ("gaussian", "window+top_k"))):
        model = model_of(*words)
        model.save_pretrained(tmp_path / name)
        weights.keep_weights(tmp_path / name, tmp_path / f"{name}.safetensors")
        back = vits.load(tmp_path / f"{name}.safetensors")
        for key, x in back.state_dict().items():  # matrices in bfloat16
            torch.testing.assert_close(x, model.state_dict()[key], rtol=2**-8, atol=0.0)
        found[name] = vits.cases(back, pixels)
    rows = {name: vits.row(name, "trained", looked["trained"]) for name, looked in found.items()}
    assert rows["krause"]["keys_heard"] <= TOP_K < rows["softmax"]["keys_heard"] == TOKENS
    titles = [ax.get_title() for ax in vit_figures.lines(found).axes]
    assert "keys that a patch hears" in titles
    # A picture, what CLS sees in each block, and the bar of their scale, for two models and two pictures.
    drawn = vit_figures.evolution(found, pixels[:2])
    assert len(drawn.axes) == 2 * 2 * (1 + BLOCKS + 1)
    line = [ax.images[0] for ax in drawn.axes[: 1 + BLOCKS]][1:]
    weights_of = found["softmax"]["trained"].weights[:, 0, :, 0, 1:].mean(1)
    assert {image.get_clim() for image in line} == {(0.0, float(weights_of.max()))}, "blocks of a line share a scale"
    np.testing.assert_array_equal(np.stack([image.get_array().ravel() for image in line]), weights_of)
