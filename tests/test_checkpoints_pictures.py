"""Vision models: states and attention against what transformers returns, pixels and files, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import record
from krause_dynamics.errors import UnsupportedModel
from tests import checkpoint_models as models

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {"image_size": 24, "patch_size": 8}
PIXELS = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
MODELS = {
    "ViT": (hf.ViTModel, hf.ViTConfig, {}, 10),
    "DeiT, a distillation token": (hf.DeiTModel, hf.DeiTConfig, {}, 11),
    "DINOv2": (hf.Dinov2Model, hf.Dinov2Config, {"mlp_ratio": 2}, 10),
    "DINOv2 with registers": (hf.Dinov2WithRegistersModel, hf.Dinov2WithRegistersConfig, {"mlp_ratio": 2}, 14),
    "CLIP": (hf.CLIPVisionModel, hf.CLIPVisionConfig, {}, 10),
}


@pytest.mark.parametrize("kind", MODELS)
def test_states_and_attention_are_those_of_transformers(kind):
    build, configure, more, tokens = MODELS[kind]
    model = models.build(build, configure(**TINY, **SIZES, **more), 0)
    run = record(model, PIXELS, batch_size=2)
    assert run.positions.shape == (3, 3, tokens, 32)
    with torch.no_grad():
        theirs = models.eager(model)(PIXELS, output_hidden_states=True, output_attentions=True)
    np.testing.assert_allclose(run.positions[:-1], torch.stack(theirs.hidden_states)[:-1], atol=2e-5)
    importance = torch.stack(theirs.attentions).mean(-2)  # who sees all keys: the mean over all queries
    np.testing.assert_allclose(run.extras["importance"], importance, atol=1e-6)
    found = kd.analyze(model, PIXELS.numpy())
    np.testing.assert_allclose(found["importance_first"], importance[..., 0].swapaxes(0, 1), atol=1e-6)
    assert found["length"].values.tolist() == [tokens] * 3


def test_files_go_through_the_processor_of_the_folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    model = models.build(hf.ViTModel, hf.ViTConfig(**TINY, **SIZES), 0)
    model.save_pretrained(tmp_path / "model")
    hf.ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    shades = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    for number, shade in enumerate(shades):
        image.fromarray(shade).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    found = record(tmp_path / "model", tmp_path / "pictures")
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path / "model")
    pixels = processor(images=[image.fromarray(shade) for shade in shades], return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(found.positions, record(model, pixels).positions, atol=1e-6)
    one = record(tmp_path / "model", tmp_path / "pictures" / "1.png")
    np.testing.assert_allclose(one.positions[:, 0], found.positions[:, 1], atol=1e-6)
    assert len(record(model, tmp_path / "pictures", tokenizer=processor, max_sequences=1).positions[0]) == 1


def test_a_krause_vision_model_is_analysed_by_its_own_rule():
    torch.manual_seed(0)
    model = kd.models.KrauseViT(kd.models.published("kvit-small-cifar10")).eval()
    height, width = model.config.pixels
    found = kd.analyze(model, torch.randn(2, 3, height, width), batch_size=1)
    assert found.sizes["sequence"] == 2
    assert float(found["importance_first"].max()) <= 1
    assert np.isfinite(found["entropy"]).all()


def test_what_is_no_picture_for_the_model_is_named(tmp_path):
    model = models.build(hf.ViTModel, hf.ViTConfig(**TINY, **SIZES), 0)
    with pytest.raises(ValueError, match=r"does not take pictures of shape \(3, 32, 32\) \(image_size 24"):
        record(model, torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="pixels must be finite"):
        record(model, torch.full((1, 3, 24, 24), torch.nan))
    with pytest.raises(ValueError, match="hold no picture"):
        record(model, torch.zeros(0, 3, 24, 24))
    with pytest.raises(TypeError, match="must be a floating array"):
        record(model, np.zeros((1, 3, 24, 24), dtype=np.uint8))
    with pytest.raises(UnsupportedModel, match="takes pixel_values .pictures"):
        record(model, [[1, 2, 3]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in"):
        record(model, tmp_path / "empty")
    with pytest.raises(ValueError, match="no such file"):
        record(model, tmp_path / "nowhere.png")


@pytest.mark.parametrize("window", [7, 2])
def test_windows_of_a_picture_are_refused_not_taken_for_whole_pictures(window):
    shape = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "image_size": 24, "patch_size": 2}
    model = models.build(hf.SwinModel, hf.SwinConfig(**shape, window_size=window), 0)
    with pytest.raises(UnsupportedModel, match="picture"):
        record(model, PIXELS)
    with pytest.raises(UnsupportedModel, match="keeps its tokens|what enters the next block"):
        record(model, PIXELS, attention=None)
