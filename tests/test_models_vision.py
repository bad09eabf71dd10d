"""Models of pictures: softmax twins against transformers' own, locality, export, saving, and what they refuse."""

from __future__ import annotations

import re
from math import log

import pytest
import torch

transformers = pytest.importorskip("transformers")

from krause_dynamics.models import KrauseSwin, KrauseSwinConfig, KrauseViT, KrauseViTConfig  # noqa: E402
from krause_dynamics.models.swin import regions_differ  # noqa: E402
from krause_dynamics.nn import KrauseAttention  # noqa: E402
from tests.model_sizes import PATCHES, WINDOWS, pixels, seeded, spread  # noqa: E402

ARMS = {
    "KViT": (KrauseViT, KrauseViTConfig, PATCHES),
    "KViT, ImageNet": (KrauseViT, KrauseViTConfig, {**PATCHES, "metric": "chebyshev", "window": 2, "read_out": "mean"}),
    "softmax ViT": (KrauseViT, KrauseViTConfig, {**PATCHES, "score": "dot", "support": "full", "norm": "pre"}),
    "KSwin": (KrauseSwin, KrauseSwinConfig, WINDOWS),
    "KSwin, ranked": (KrauseSwin, KrauseSwinConfig, {**WINDOWS, "support": "window+top_k", "attention_top_k": 6}),
    "softmax Swin": (KrauseSwin, KrauseSwinConfig, {**WINDOWS, "score": "dot"}),
}


@pytest.fixture(params=list(ARMS))
def model(request):
    kind, config, small = ARMS[request.param]
    return seeded(kind, config(**small))


def renamed(state, table):
    """The weights of transformers under our names; what the table does not name is left out."""
    names = {}
    for name, weight in state.items():
        for pattern, ours in table:
            if re.fullmatch(pattern, name):
                names[re.sub(pattern, ours, name)] = weight
                break
    return names


def load(model, state):
    """All weights but the temperature, which is written anew: it starts in float32, an error of 1e-8 of the scale."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("log_sigma" in name for name in missing), missing
    for module in model.modules():
        if isinstance(module, KrauseAttention):
            module.log_sigma.weight.fill_(0.25 * log(module.head_dim))


VIT = [
    (r"vit\.embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embedding.\1"),
    (r"vit\.embeddings\.cls_token", "prefix_embedding.weight"),
    (r"vit\.embeddings\.position_embeddings", "position_embedding.weight"),
    (r"vit\.layers\.(\d+)\.attention\.o_proj\.(\w+)", r"layers.\1.attention.out_proj.\2"),
    (r"vit\.layers\.(\d+)\.attention\.(\w+)\.(\w+)", r"layers.\1.attention.\2.\3"),
    (r"vit\.layers\.(\d+)\.layernorm_before\.(\w+)", r"layers.\1.norm1.\2"),
    (r"vit\.layers\.(\d+)\.layernorm_after\.(\w+)", r"layers.\1.norm2.\2"),
    (r"vit\.layers\.(\d+)\.mlp\.fc1\.(\w+)", r"layers.\1.mlp.0.\2"),
    (r"vit\.layers\.(\d+)\.mlp\.fc2\.(\w+)", r"layers.\1.mlp.3.\2"),
    (r"vit\.layernorm\.(\w+)", r"norm.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
]


@torch.no_grad()
def test_with_dot_products_on_everyone_it_is_the_vit_of_transformers():
    theirs = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=(16, 20),
            patch_size=4, num_labels=5, layer_norm_eps=1e-5, attn_implementation="sdpa",
        )
    ).double()  # fmt: skip
    spread(theirs)
    mine = seeded(KrauseViT, KrauseViTConfig(**PATCHES, score="dot", support="full", norm="pre"))
    state = {k: v.reshape(-1, 16) if "embedding.weight" in k and "patch" not in k else v
             for k, v in renamed(theirs.state_dict(), VIT).items()}  # fmt: skip
    load(mine, state)
    x = pixels(mine.config)
    torch.testing.assert_close(mine(x).logits, theirs(x).logits, rtol=1e-10, atol=1e-10)


def swin_names(depths):
    """Transformers counts blocks in each stage and keeps the merging in it; we count all."""
    table = [
        (r"swin\.embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embedding.\1"),
        (r"swin\.embeddings\.norm\.(\w+)", r"patch_norm.\1"),
        (r"swin\.layernorm\.(\w+)", r"norm.\1"),
        (r"classifier\.(\w+)", r"head.\1"),
    ]
    parts = [
        (r"attention\.o_proj\.(\w+)", r"attention.rule.out_proj.\1"),
        (r"attention\.(\w_proj)\.(\w+)", r"attention.rule.\1.\2"),
        (r"attention\.relative_position_bias\.relative_position_bias_table", "attention.position_bias.weight"),
        (r"layernorm_before\.(\w+)", r"norm1.\1"),
        (r"layernorm_after\.(\w+)", r"norm2.\1"),
        (r"mlp\.fc1\.(\w+)", r"mlp.0.\1"),
        (r"mlp\.fc2\.(\w+)", r"mlp.3.\1"),
    ]
    place = 0
    for stage, depth in enumerate(depths):
        for block in range(depth):
            table += [(rf"swin\.encoder\.layers\.{stage}\.blocks\.{block}\.{theirs}", f"layers.{place}.{ours}")
                      for theirs, ours in parts]  # fmt: skip
            place += 1
        table.append((rf"swin\.encoder\.layers\.{stage}\.downsample\.([\w.]+)", rf"layers.{place}.\1"))
        place += 1
    return table


@torch.no_grad()
def test_with_dot_products_it_is_the_swin_of_transformers():
    """Where both mean the same: the last map is one window, which only KSwin would shift, so it has one block."""
    theirs = transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4, num_labels=5,
            layer_norm_eps=1e-5, drop_path_rate=0.0, attn_implementation="sdpa",
        )
    ).double()  # fmt: skip
    spread(theirs)
    mine = seeded(KrauseSwin, KrauseSwinConfig(**WINDOWS, score="dot"))
    load(mine, renamed(theirs.state_dict(), swin_names((2, 1))))
    x = pixels(mine.config)
    torch.testing.assert_close(mine(x).logits, theirs(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_patch_feels_its_neighbourhood_and_what_cls_has_heard():
    """One layer, CLS read-out aside: patches further than the window and the CLS row do not change."""
    model = seeded(KrauseViT, KrauseViTConfig(**{**PATCHES, "num_hidden_layers": 1, "support": "window"}))
    x = pixels(model.config)
    changed = x.clone()
    changed[:, :, 4:8, 8:12] += 1.0  # patch (1, 2) of 4 x 5
    states = [model(y, output_hidden_states=True).hidden_states[1] for y in (x, changed)]
    felt = ((states[0] - states[1]).abs().amax((0, 2)) > 0)[1:].reshape(4, 5)
    assert felt.nonzero().tolist() == [[0, 2], [1, 1], [1, 2], [1, 3], [2, 2]]


def test_regions_of_a_shifted_map_are_those_that_were_apart():
    """Two places of a window may meet if they are as far apart as in the map before the shift."""
    size, side, shift = (8, 12), 4, 2
    row, column = torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij")
    windows = []
    for place in (row, column):
        moved = place.roll((-shift, -shift), (0, 1)).unflatten(0, (-1, side)).unflatten(2, (-1, side))
        windows.append(moved.transpose(1, 2).reshape(-1, side**2))
    far = [(w[:, :, None] - w[:, None]).abs() >= side for w in windows]
    assert torch.equal(regions_differ(size, side, shift), far[0] | far[1])


@torch.no_grad()
def export(model, strict):
    """The exported program beside the model, on a batch of another size."""
    before, other = pixels(model.config, batch=3), pixels(model.config, batch=5, seed=2)
    expected = model(other).logits
    sizes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(model, (before,), dynamic_shapes=sizes, strict=strict)
    torch.testing.assert_close(program.module()(other).logits, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(model(other).logits, expected), "exporting leaves the model as it was"


@pytest.mark.parametrize(("name", "strict"), [("KViT", False), ("KViT", True), ("KSwin", False)])
def test_an_exported_model_gives_the_same_logits_for_any_batch(name, strict):
    kind, config, small = ARMS[name]
    export(seeded(kind, config(**small)), strict)


@torch.no_grad()
def test_a_saved_folder_loads_by_the_auto_classes(model, tmp_path):
    model.save_pretrained(tmp_path)
    back = transformers.AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(back) is type(model)
    apart = {"_name_or_path": "", "dtype": None}
    assert {**back.config.to_dict(), **apart} == {**model.config.to_dict(), **apart}
    x = pixels(model.config)
    torch.testing.assert_close(back(x).logits, model(x).logits, rtol=1e-14, atol=1e-14)


def test_the_loss_is_the_cross_entropy_of_classes_or_of_their_shares(model):
    x, labels = pixels(model.config), torch.tensor([3, 0])
    output = model(x, labels=labels)
    picked = output.logits.log_softmax(-1)[[0, 1], labels]
    torch.testing.assert_close(output.loss, -picked.mean(), rtol=1e-12, atol=0)
    shares = torch.nn.functional.one_hot(labels, 5).double()
    torch.testing.assert_close(model(x, labels=shares, return_dict=False)[0], output.loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("KViT", {"image_size": (32,)}, "image_size must be .height, width."),
        ("KViT", {"image_size": 30}, "patch_size must divide image_size, got 4 and 30"),
        ("KViT", {"metric": "euclidean"}, "metric must be 'chebyshev' or 'manhattan'"),
        ("KViT", {"read_out": "max"}, "read_out must be 'cls' or 'mean'"),
        ("KViT", {"patch_sise": 2}, "did you mean 'patch_size'"),
        ("KSwin", {"window": 3}, "window must divide maps"),
        ("KSwin", {"heads": (3, 4)}, "num_attention_heads must divide hidden_size"),
        ("KSwin", {"heads": (2,)}, "depths and heads must name the same stages"),
        ("KSwin", {"num_hidden_layers": 4}, "follows from the stages and must be 3"),
        ("KSwin", {"support": "full"}, "support must be one of window"),
    ],
)
def test_a_configuration_refuses_what_no_model_can_be(kind, change, says):
    _, config, small = ARMS[kind]
    with pytest.raises(ValueError, match=says):
        config(**{**small, **change})


def test_pictures_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match="resize them"):
        model(torch.zeros(2, 3, 20, 20, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"floating tensor .*, got torch.uint8; bytes"):
        model(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
