"""Vision models: states and attention against what transformers returns, pixels and files, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import patches, record
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
    "CLIP's vision with its projection": (hf.CLIPVisionModelWithProjection, hf.CLIPVisionConfig, {}, 10),
    "SigLIP, no class token": (hf.SiglipVisionModel, hf.SiglipVisionConfig, {}, 9),
}
SPECIAL = {
    "DeiT, a distillation token": ["class", "distillation"],
    "DINOv2 with registers": ["class", "register 1", "register 2", "register 3", "register 4"],
    "SigLIP, no class token": [],
}


@pytest.mark.parametrize("kind", MODELS)
def test_states_and_attention_are_those_of_transformers(kind):
    build, configure, more, tokens = MODELS[kind]
    model = models.build(build, configure(**TINY, **SIZES, **more), 0)
    run = record(model, PIXELS, batch_size=2)
    assert run.positions.shape == (3, 3, tokens, 32)
    with torch.no_grad():
        theirs = models.eager(model)(PIXELS, output_hidden_states=True, output_attentions=True)
    np.testing.assert_allclose(run.positions[:-1], torch.stack(theirs.hidden_states)[:-1], atol=2e-5, rtol=1e-5)
    importance = torch.stack(theirs.attentions).mean(-2)  # who sees all keys: the mean over all queries
    np.testing.assert_allclose(run.extras["importance"], importance, atol=1e-6)
    found = kd.analyze(model, PIXELS.numpy())
    np.testing.assert_allclose(found["importance_first"], importance[..., 0].swapaxes(0, 1), atol=1e-6)
    assert found["length"].values.tolist() == [tokens] * 3


@pytest.mark.parametrize("kind", MODELS)
def test_class_token_registers_and_patches_apart(kind):
    build, configure, more, tokens = MODELS[kind]
    model = models.build(build, configure(**TINY, **SIZES, **more), 0)
    found = patches(record(model, PIXELS, batch_size=2), outlier=1.2)
    names = SPECIAL.get(kind, ["class"])
    assert found["special"].values.tolist() == names
    with torch.no_grad():
        theirs = models.eager(model)(PIXELS, output_hidden_states=True, output_attentions=True)
    alpha = torch.stack(theirs.attentions).mean(-2).swapaxes(0, 1).numpy()
    np.testing.assert_allclose(found["special_importance"], alpha[..., : len(names)], atol=1e-6)
    on_grid = alpha[..., tokens - 9 :].reshape(3, 2, 4, 3, 3)
    np.testing.assert_allclose(found["patch_importance"], on_grid, atol=1e-6)
    total = found["special_importance"].sum("special") + found["patch_importance"].sum(("row", "column"))
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    np.testing.assert_allclose(found["peak"], on_grid.max((-1, -2)) / on_grid.mean((-1, -2)), rtol=1e-4)
    for layer in range(2):
        states = theirs.hidden_states[layer].double().numpy()
        norms = np.linalg.norm(states, axis=-1)
        norms /= np.median(norms[:, tokens - 9 :], axis=-1, keepdims=True)
        here = found.sel(layer=layer)
        np.testing.assert_allclose(here["patch_norm"].values.reshape(3, 9), norms[:, tokens - 9 :], rtol=1e-4)
        np.testing.assert_allclose(here["special_norm"], norms[:, : len(names)], rtol=1e-4)
        np.testing.assert_allclose(here["outlier_share"], (norms[:, tokens - 9 :] > 1.2).mean(-1))
        unit = torch.nn.functional.normalize(torch.from_numpy(states[:, tokens - 9 :]), dim=-1)
        cosines = (unit @ unit.mT).numpy()[:, *np.triu_indices(9, 1)].mean(-1)
        np.testing.assert_allclose(here["patch_cosine"], cosines, atol=1e-5)


def test_a_massive_patch_is_told_apart_from_a_massive_class_token():
    """One patch of twenty times the size: it alone is an outlier, where the ratio of the first token sees nothing."""
    model = models.build(hf.ViTModel, hf.ViTConfig(**TINY, **SIZES), 0)
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 1 + 5] += 20 * torch.randn(32)
    found = patches(record(model, PIXELS, attention=None))
    assert "peak" not in found
    first = found.isel(layer=0)
    np.testing.assert_allclose(first["outlier_share"], 1 / 9)
    assert (first["patch_norm"].values.reshape(3, 9).argmax(-1) == 5).all()
    assert (first["special_norm"] < 3).all()


def test_other_sizes_than_that_of_the_configuration_have_their_own_grid():
    model = models.build(hf.Dinov2Model, hf.Dinov2Config(**TINY, **SIZES, mlp_ratio=2), 0)  # interpolates positions
    found = patches(record(model, torch.randn(1, 3, 32, 48)))
    assert (found.sizes["row"], found.sizes["column"]) == (4, 6)
    with pytest.raises(ValueError, match="whose patches stand on a grid"):
        patches(record(models.llama(), [[1, 2, 3]]))


def test_dinov3_and_detection_tokens():
    dinov3 = models.build(hf.DINOv3ViTModel, hf.DINOv3ViTConfig(**TINY, **SIZES, num_register_tokens=2), 0)
    found = patches(record(dinov3, PIXELS, attention=None))
    assert found["special"].values.tolist() == ["class", "register 1", "register 2"]
    config = hf.YolosConfig(**TINY, image_size=[24, 24], patch_size=8, num_detection_tokens=2)
    found = patches(record(models.build(hf.YolosModel, config, 0), PIXELS))
    assert found["special"].values.tolist() == ["class", "detection 1", "detection 2"]


def test_models_that_draw_their_patches_and_composed_ones_say_the_way_out():
    for ratio in (0.75, 0.0):  # it draws their order even where it leaves none out
        masked = models.build(hf.ViTMAEModel, hf.ViTMAEConfig(**TINY, **SIZES, mask_ratio=ratio), 0)
        with pytest.raises(UnsupportedModel, match="other tokens of the same picture .* such as ViTModel"):
            record(masked, PIXELS)
    named = dict(masked.named_parameters())
    plain = hf.ViTModel(hf.ViTConfig(**TINY, **SIZES), add_pooling_layer=False)
    assert {name for name, _ in plain.named_parameters()} - set(named) == set()  # the way out: its weights fit
    text = {**TINY, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1}
    both = hf.CLIPConfig(text_config=text, vision_config={**TINY, **SIZES}, projection_dim=16)
    with pytest.raises(UnsupportedModel, match="takes input_ids, not pixel_values"):
        record(models.llama(), PIXELS)
    model = models.build(hf.CLIPModel, both, 0)
    with pytest.raises(UnsupportedModel, match="part='vision_model'"):
        record(model, PIXELS)
    assert patches(record(model, PIXELS, part="vision_model"))["special"].values.tolist() == ["class"]


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


SHORT = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
PROCESSORS = {
    "DINOv2 with registers": lambda: hf.BitImageProcessor(**SHORT),
    "CLIP": lambda: hf.CLIPImageProcessor(**SHORT),
    "SigLIP, no class token": lambda: hf.SiglipImageProcessor(size={"height": 24, "width": 24}),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_each_family_goes_through_its_own_processor(kind, tmp_path):
    image = pytest.importorskip("PIL.Image")
    build, configure, more, _ = MODELS[kind]
    model, processor = models.build(build, configure(**TINY, **SIZES, **more), 0), PROCESSORS[kind]()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    picture = image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    picture.save(tmp_path / "one.png")
    expected = record(model, processor(images=[picture], return_tensors="pt")["pixel_values"])
    found = record(tmp_path / "model", tmp_path / "one.png")
    np.testing.assert_allclose(found.positions, expected.positions, rtol=1e-5, atol=1e-5)
    # Since transformers 5 a model of texts and pictures keeps both settings in one file.
    settings = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    (tmp_path / "model" / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    found = record(tmp_path / "model", tmp_path / "one.png")
    np.testing.assert_allclose(found.positions, expected.positions, rtol=1e-5, atol=1e-5)


def test_a_damaged_picture_is_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((40, 30, 3), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    model = models.build(hf.ViTModel, hf.ViTConfig(**TINY, **SIZES), 0)
    for name in ("cut.png", "text.jpg"):
        with pytest.raises(ValueError, match=f"{name} is damaged or no picture"):
            record(model, tmp_path / name)


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


def test_a_stage_of_windows_has_its_states_and_the_whole_is_refused():
    shape = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "image_size": 24, "patch_size": 2, "window_size": 4}
    model = models.build(hf.SwinModel, hf.SwinConfig(**shape), 0)
    for attention in ("statistics", None):
        with pytest.raises(UnsupportedModel, match="merges its tokens between stages"):
            record(model, PIXELS, attention=attention)
    for number, side in ((0, 12), (1, 6)):
        blocks = list(model.encoder.layers[number].blocks)
        padded = record(model, PIXELS, blocks=blocks).extras["learned_sink"]
        assert (padded > 0).all() if side % 4 else (padded == 0).all()
        seen = []
        hooks = [block.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out[0])) for block in blocks]
        with torch.no_grad():
            model(PIXELS)
        for hook in hooks:
            hook.remove()
        run = record(model, PIXELS, blocks=blocks, attention=None)
        assert run.positions.shape == (len(blocks) + 1, 3, side**2, 8 * 2**number)
        np.testing.assert_allclose(run.positions[1:], torch.stack(seen), atol=1e-6)
