"""Published weights: the loaded model equals the published formulas; files say what they lack, and are checked."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")
from safetensors.torch import save_file  # noqa: E402

from krause_dynamics.models import KARM, KrauseLM, KrauseSwin, KrauseViT, convert, from_published, published  # noqa: E402
from krause_dynamics.models.settings import SETTINGS  # noqa: E402
from tests import published_modules as theirs  # noqa: E402
from tests.model_sizes import words  # noqa: E402

VIT = {"num_attention_heads": 2, "attention_top_k": 2, "window": 1, "metric": "manhattan"}
KARM_KEYS = {"window": 9, "attention_top_k": 4, "image_size": 3, "num_channels": 3}
TWIN = {"num_attention_heads": 2, "image_size": 3, "num_channels": 3}


def single(state):
    """Weights that float32 holds: loading loses nothing, so that both sides compute the same in float64."""
    return {k: v.float().double() if v.is_floating_point() else v for k, v in state.items()}


def picture(height, width, seed=5):
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def compare(state, x, expected, kind, **keys):
    model = from_published(state, **keys).double()
    assert type(model) is kind
    assert not model.training
    # The fixed temperature of dot products is a logarithm in float32, 4e-9 off.
    torch.testing.assert_close(model(x).logits, expected, rtol=1e-7, atol=1e-7)
    return model


@pytest.mark.parametrize("image_net", [False, True])
def test_kvit(image_net):
    grid = (3, 4) if image_net else (3, 3)
    state = single(theirs.vit_state(grid=grid, image_net=image_net))
    keys = {**VIT, "window": 2, "metric": "chebyshev", "image_size": (6, 8), "attention_top_k": 5} if image_net else VIT
    x = picture(2 * grid[0], 2 * grid[1])
    expected = theirs.vit_forward(state, x, 2, keys["attention_top_k"])
    compare(state, x, expected, KrauseViT, **keys)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.module."])
def test_karm(wrapper):
    state = single(theirs.karm_state())
    x = words(27, vocabulary=6)
    expected = theirs.karm_forward(state, x, 2, 9, 4)
    compare({f"{wrapper}{k}": v for k, v in state.items()}, x, expected, KARM, **KARM_KEYS)


@pytest.mark.parametrize("score", ["dot", "linear"])
def test_its_softmax_and_linear_twins(score):
    state = single(theirs.karm_state(twin=True))
    x = words(27, vocabulary=6)
    model = compare(state, x, theirs.karm_forward(state, x, 2, score=score), KARM, score=score, **TWIN)
    assert model.config.score == score


def test_the_gated_language_model():
    state = single(theirs.language_state())
    x = words(20, vocabulary=11)
    model = compare(state, x, theirs.language_forward(state, x, 2, 7, 3), KrauseLM, window=7, attention_top_k=3)
    assert model.head.weight is model.token_embedding.weight
    tied = {**state, "lm_head.weight": state["token_emb.weight"]}
    assert type(from_published(tied, window=7, attention_top_k=3)) is KrauseLM
    with pytest.raises(ValueError, match="tied"):
        from_published({**state, "lm_head.weight": 2 * state["token_emb.weight"]}, window=7, attention_top_k=3)


def test_kswin():
    """Maps of 8, 4 and 2 patches: shifted windows, one shifted window, and one smaller than the window."""
    state = single(theirs.swin_state())
    x = picture(16, 16)
    compare(state, x, theirs.swin_forward(state, x), KrauseSwin, image_size=16)


def test_every_shape_of_log_sigma_is_read():
    state = single(theirs.karm_state())
    flat = {k: v.flatten() if "log_sigma" in k else v for k, v in state.items()}
    x = words(27, vocabulary=6)
    compare(flat, x, theirs.karm_forward(state, x, 2, 9, 4), KARM, **KARM_KEYS)


def test_one_log_sigma_for_all_heads_says_nothing_of_their_number():
    state, x = single(theirs.karm_state()), words(27, vocabulary=6)
    one = {k: v[0, 0, 0] if "log_sigma" in k else v for k, v in state.items()}
    with pytest.raises(ValueError, match="does not say num_attention_heads"):
        from_published(one, **KARM_KEYS)
    compare(one, x, theirs.karm_forward(one, x, 2, 9, 4), KARM, num_attention_heads=2, **KARM_KEYS)
    each = {k: v.expand(2) if "log_sigma" in k else v for k, v in single(theirs.vit_state()).items()}
    y = picture(6, 6)
    keys = {k: v for k, v in VIT.items() if k != "num_attention_heads"}
    compare(each, y, theirs.vit_forward(single(theirs.vit_state()), y, 2, 2), KrauseViT, **keys)
    maps = {k: v[:1] if "log_sigma" in k else v for k, v in single(theirs.swin_state()).items()}
    with pytest.raises(ValueError, match="does not say heads"):
        from_published(maps, image_size=16)
    assert from_published(maps, image_size=16, heads=(2, 4, 4), depths=(2, 2, 1)).config.heads == (2, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
def test_a_file_becomes_a_folder_of_transformers(tmp_path, ending):
    state, path = single(theirs.karm_state()), tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model_state_dict": state, "epoch": 3} if ending == ".pt" else state, path)
    model = convert(path, tmp_path / "folder", **KARM_KEYS)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    x = words(27, vocabulary=6)
    assert torch.equal(back(x).logits, model(x).logits)


def test_a_pickled_object_is_not_read(tmp_path):
    torch.save({"hook": print}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="no state dictionary of tensors that can be read"):
        convert(tmp_path / "weights.pt")


@pytest.mark.parametrize("ending", [".pt", ".txt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"epoch,loss\n1,0.5\n"])
def test_an_empty_file_and_a_text_are_refused(tmp_path, ending, content):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights{ending} is no state dictionary of tensors that can be read"):
        convert(path, **KARM_KEYS)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_half_a_file_and_a_folder_that_is_a_file_are_refused(tmp_path, ending):
    state, path = theirs.karm_state(), tmp_path / f"weights{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    with pytest.raises(ValueError, match="folder must be a folder"):
        convert(path, path, **KARM_KEYS)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="truncated or damaged"):
        convert(path, **KARM_KEYS)


@pytest.mark.parametrize("missing", list(VIT))
def test_what_the_file_lacks_is_asked_for(missing):
    keys = {k: v for k, v in VIT.items() if k != missing}
    with pytest.raises(ValueError, match=f"does not say {missing}"):
        from_published(theirs.vit_state(), **keys)


def test_a_picture_that_is_no_square_is_asked_for():
    with pytest.raises(ValueError, match="does not say image_size"):
        from_published(theirs.vit_state(grid=(3, 4)), **VIT)


def wrong(state, name, change):
    return {k: (change(v) if k == name else v) for k, v in state.items()}


@pytest.mark.parametrize(
    ("state", "keys", "says"),
    [
        (theirs.vit_state(), {**VIT, "metric": "chebyshev"}, "is not the neighbourhood"),
        (theirs.vit_state(), {**VIT, "hidden_size": 16}, "hidden_size is 8 in the file, got 16"),
        (wrong(theirs.vit_state(), "blocks.1.attention.local_mask_buffer", torch.logical_not), VIT, "blocks.1.att"),
        ({**theirs.vit_state(), "ema.decay": torch.ones(1)}, VIT, "ema.decay is no weight"),
        ({k: v for k, v in theirs.vit_state().items() if k != "norm.bias"}, VIT, "missing: .'norm.bias'"),
        (wrong(theirs.vit_state(), "norm.bias", lambda v: v[:3]), VIT, "norm.bias must be"),
        (wrong(theirs.swin_state(), "features.1.1.attn.relative_position_index", lambda v: v + 1), {"image_size": 16},
         "features.1.1.attn.relative_position_index is not"),
        (theirs.karm_state(twin=True), TWIN, "does not say score"),
        ({k: v for k, v in theirs.karm_state().items() if k != "token_emb.weight"}, KARM_KEYS, "missing: token_emb"),
        (wrong(theirs.karm_state(), "head.weight", lambda v: v.long()), KARM_KEYS, "head.weight must be floating"),
        (wrong(theirs.karm_state(), "head.weight", lambda v: 3), KARM_KEYS, "got int for head.weight"),
        (theirs.karm_state(), {**KARM_KEYS, "image_size": 4}, "max_position_embeddings follows"),
        (wrong(theirs.karm_state(), "ln_f.bias", lambda v: v / 0), KARM_KEYS, "finite, got others in norm.bias"),
        ({"weight": torch.ones(2)}, {}, "no published module"),
        ({**theirs.karm_state(), "module.ln_f.bias": torch.ones(8)}, KARM_KEYS, "holds ln_f.bias twice"),
        (wrong(theirs.karm_state(), "ln_f.bias", lambda v: v.to("meta")), KARM_KEYS, "content .meta. for ln_f.bias"),
        (wrong(theirs.karm_state(), "head.weight", torch.Tensor.to_sparse), KARM_KEYS, "sparse_coo for head.weight"),
        (wrong(theirs.karm_state(), "pos_emb.weight", torch.sum), KARM_KEYS, r"pos_emb.weight tells sizes, got \(\)"),
        (wrong(theirs.vit_state(), "pos_embed", lambda v: v[0, :, 0]), VIT, r"pos_embed tells sizes, got \(10,\)"),
        (wrong(theirs.swin_state(), "head.weight", torch.sum), {"image_size": 16}, r"head.weight tells sizes, got"),
    ],
)  # fmt: skip
def test_files_that_are_something_else_are_refused(state, keys, says):
    with pytest.raises(ValueError, match=says):
        from_published(state, **keys)


LISTS = {
    "one list": lambda s: s.pop("blocks.0.attention.valid_j_indices"),
    "the other list": lambda s: s.pop("blocks.0.attention.valid_i_indices"),
    "none": lambda s: s.update({f"blocks.0.attention.valid_{x}_indices": torch.empty(0, dtype=int) for x in "ij"}),
    "no whole numbers": lambda s: s.update({f"blocks.0.attention.valid_{x}_indices": torch.ones(3) for x in "ij"}),
    "unequal": lambda s: s.update({"blocks.0.attention.valid_i_indices": torch.zeros(1, dtype=int)}),
    "a number": lambda s: s.update({"blocks.0.attention.local_mask_buffer": torch.tensor(True)}),
}


@pytest.mark.parametrize("change", LISTS.values(), ids=LISTS)
def test_buffers_of_another_form_are_refused_in_words(change):
    state = theirs.vit_state()
    change(state)
    with pytest.raises(ValueError, match=r"is not the neighbourhood of this configuration"):
        from_published(state, num_attention_heads=2, attention_top_k=2, window=1, metric="manhattan")


def test_settings_have_the_sizes_of_the_paper():
    config = published("kvit-small-cifar10")
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (384, 1536, 6)
    assert [config.top_k_of(i) for i in range(12)] == [2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4]
    large = published("kvit-small-imagenet")
    assert [large.top_k_of(i) for i in range(12)] == [8, 9, 9, 10, 11, 12, 12, 13, 14, 15, 15, 16]
    assert (published("karm-mnist").max_position_embeddings, published("karm-cifar10").max_position_embeddings) == (
        784,
        3072,
    )
    assert published("karm-mnist", score="linear", support="full").score == "linear"
    with pytest.raises(ValueError, match="did you mean 'karm-mnist'"):
        published("karm-minst")


@pytest.mark.parametrize(("name", "millions"), [("lm-100m", 100), ("lm-200m", 200)])
def test_language_models_are_as_large_as_their_names(name, millions):
    with torch.device("meta"):
        model = KrauseLM(published(name))
    assert abs(sum(p.numel() for p in model.parameters()) / 1e6 / millions - 1) < 0.05


def test_every_setting_builds_on_its_own_sizes():
    from krause_dynamics.models.auto import MODELS

    kinds = {config: model for _, config, model in MODELS}
    for name in SETTINGS:
        config = published(name)
        with torch.device("meta"):
            assert kinds[type(config)](config).config.num_hidden_layers in (8, 12, 16)
