"""Recorded states and attention against a hand-written forward pass and against transformers' own eager attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import record
from tests import checkpoint_models as models

IDS = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7], [2, 7, 1, 8, 28, 18]]
# Two float32 forward passes of the same formulas in another order of sums.
CLOSE = 2e-5


def by_hand(model, ids: list[int]) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """A Llama written out with numpy in float64: states, final norm, weights (heads, T, T) of each block."""
    weight = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    config, length = model.config, len(ids)
    heads, groups = config.num_attention_heads, config.num_attention_heads // config.num_key_value_heads
    width = config.hidden_size // heads
    norm = lambda x, w: x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * w  # noqa: E731
    angle = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, width, 2) / width)
    cos, sin = (np.concatenate([part, part], -1) for part in (np.cos(angle), np.sin(angle)))
    turn = lambda x: x * cos + np.concatenate([-x[..., width // 2 :], x[..., : width // 2]], -1) * sin  # noqa: E731
    split = lambda x: x.reshape(length, -1, width).swapaxes(0, 1)  # noqa: E731
    x = weight["model.embed_tokens.weight"][ids]
    states, maps = [x], []
    for i in range(config.num_hidden_layers):
        part = lambda name, i=i: weight[f"model.layers.{i}.{name}.weight"]  # noqa: E731
        h = norm(x, part("input_layernorm"))
        q, k, v = (split(h @ part(f"self_attn.{name}_proj").T) for name in "qkv")
        q, k, v = turn(q), np.repeat(turn(k), groups, 0), np.repeat(v, groups, 0)
        scores = np.where(np.tri(length, dtype=bool), q @ k.swapaxes(1, 2) / np.sqrt(width), -np.inf)
        a = np.exp(scores - scores.max(-1, keepdims=True))
        a /= a.sum(-1, keepdims=True)
        x = x + (a @ v).swapaxes(0, 1).reshape(length, -1) @ part("self_attn.o_proj").T
        h = norm(x, part("post_attention_layernorm"))
        gate = h @ part("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part("mlp.up_proj").T)) @ part("mlp.down_proj").T
        states.append(x)
        maps.append(a)
    return states, norm(x, weight["model.norm.weight"]), maps


def test_states_and_weights_equal_a_forward_pass_written_by_hand():
    model = models.llama(num_hidden_layers=2)
    run = record(model, IDS[:1], attention="weights")
    states, final, maps = by_hand(model, IDS[0])
    scale = np.abs(states[-1]).max()
    np.testing.assert_allclose(run.positions[:, 0], states, atol=CLOSE * scale)
    np.testing.assert_allclose(run.extras["final_norm"][0], final, atol=CLOSE * np.abs(final).max())
    np.testing.assert_allclose(run.extras["attention"][:, 0], maps, atol=CLOSE)
    assert run.meta["axis"] == "layer"
    assert run.meta["attention_path"] == "registry"
    assert run.times.tolist() == [0, 1, 2]
    assert run.times.dtype == np.float64  # as of every run


MODELS = {
    "llama": models.llama,
    "gpt2": models.gpt2,
    "bert": models.bert,
    "albert": models.albert,
    "mistral": models.mistral,
    "gemma2": models.gemma2,
}


@pytest.mark.parametrize("name", MODELS)
def test_recorded_run_equals_eager_attention_of_transformers(name):
    model = MODELS[name]()
    run = record(model, IDS, attention="weights")
    reference = models.eager(model)
    for i, ids in enumerate(IDS):
        n = len(ids)
        with torch.no_grad():
            output = reference(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
        weights = torch.stack(output.attentions)[:, 0].numpy()
        hidden = torch.stack(output.hidden_states)[:, 0].numpy()
        assert len(run) == len(hidden) == len(weights) + 1
        np.testing.assert_allclose(run.extras["attention"][:, i, :, :n, :n], weights, atol=CLOSE)
        # transformers' last state is after the final norm where there is one; all others are the residual stream
        scale = np.abs(hidden[:-1]).max()
        np.testing.assert_allclose(run.positions[:-1, i, :n], hidden[:-1], atol=CLOSE * scale)
        last = run.extras["final_norm"][i, :n] if "final_norm" in run.extras else run.positions[-1, i, :n]
        np.testing.assert_allclose(last, hidden[-1], atol=CLOSE * np.abs(hidden[-1]).max())
    assert ("final_norm" in run.extras) == (name not in ("bert", "albert"))


def test_albert_is_one_module_called_once_for_every_layer_of_its_configuration():
    run = record(models.albert(num_hidden_layers=7), IDS)
    assert len(run) == 8
    assert run.extras["importance"].shape[0] == 7
    run = record(models.albert(num_hidden_layers=3, inner_group_num=2), IDS)
    assert len(run) == 7


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_loaded_attention_and_padding_on_either_side_change_nothing(name, implementation, side):
    model = MODELS[name]()
    expected = record(model, IDS)
    model.set_attn_implementation(implementation)
    longest = max(map(len, IDS))
    padded, mask = np.zeros((2, longest), dtype=int), np.zeros((2, longest), dtype=int)
    for i, ids in enumerate(IDS):
        where = slice(longest - len(ids), None) if side == "left" else slice(len(ids))
        padded[i, where], mask[i, where] = ids, 1
    run = record(model, {"input_ids": padded, "attention_mask": mask})
    np.testing.assert_array_equal(run.positions, expected.positions)
    np.testing.assert_array_equal(run.log_mass, expected.log_mass)
    for key in expected.extras:
        np.testing.assert_array_equal(run.extras[key], expected.extras[key])
    assert run.extras["lengths"].tolist() == [10, 6]
    assert np.isneginf(run.log_mass[1, 6:]).all()
    assert (run.log_mass[1, :6] == 0).all()
    # What transformers itself makes of the padded batch: the same on the real tokens.
    with torch.no_grad():
        position = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
        arguments = {"position_ids": position} if side == "left" else {}
        output = model.base_model(
            torch.tensor(padded), attention_mask=torch.tensor(mask), output_hidden_states=True, **arguments
        )
    real = output.hidden_states[1].numpy()[mask.astype(bool)]
    ours = np.concatenate([run.positions[1, i, : len(ids)] for i, ids in enumerate(IDS)])
    np.testing.assert_allclose(ours, real, atol=CLOSE * np.abs(real).max())


def test_one_repeated_token_gives_equal_rows_and_weights_that_depend_on_the_lag_alone():
    """Without a BOS a rotary decoder gives every position of one repeated token the same state, any weights.

    Its scores are then g(i - j), so that ln A_ij - ln A_ii is the same along every diagonal.
    """
    length = 64
    run = record(models.llama(seed=5), [[17] * length], attention="weights")
    spread = np.abs(run.positions - run.positions[:, :, :1]).max()
    assert spread <= 1e-5 * np.abs(run.positions).max()
    np.testing.assert_allclose(kd.observables.order_parameter(run.positions[:, 0]), 1.0, atol=1e-5)
    weights = run.extras["attention"][:, 0].astype(float)
    for lag in (1, 5, 20):
        ratio = [weights[..., i, i - lag] / weights[..., i, i] for i in range(lag, length)]
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], np.shape(ratio)), rtol=1e-4)


def test_one_repeated_token_without_rotation_gives_harmonic_importance():
    """With equal states and no position in the scores A_ik = 1/(i+1), so alpha_0 = H_T / T, any weights."""
    length = 64
    model = models.llama(seed=5)
    model.model.rotary_emb.inv_freq.zero_()
    run = record(model, [[17] * length])
    expected = np.array([(1 / np.arange(k + 1, length + 1)).sum() / (length - k) for k in range(length)])
    assert expected[0] == pytest.approx(0.0741, abs=1e-4)
    np.testing.assert_allclose(run.extras["importance"][:, 0], np.broadcast_to(expected, (3, 4, length)), atol=1e-5)
    np.testing.assert_allclose(run.extras["entropy"], 1.0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_importance_against_float64_eager(dtype):
    model = models.llama(seed=3)
    ids = np.random.default_rng(0).integers(0, models.VOCABULARY, 40)
    run = record(model.to(dtype), ids)
    reference = models.eager(models.llama(seed=3), torch.float64)
    with torch.no_grad():
        weights = torch.stack(reference(torch.tensor(ids)[None], output_attentions=True).attentions)[:, 0].numpy()
    alpha = weights.sum(2) / (40 - np.arange(40))
    # bfloat16 weights and states carry 8 bits, whatever the precision of the statistics
    np.testing.assert_allclose(run.extras["importance"][:, 0], alpha, atol=1e-5 if dtype == torch.float32 else 0.1)
    assert run.extras["importance"].dtype == np.float32
    assert run.positions.dtype == np.float32


def test_own_attention_code_is_read_from_eager_weights_and_says_so():
    run = record(models.bloom(), IDS, attention="statistics")
    assert run.meta["attention_path"] == "eager"
    assert len(run) == 3
    with torch.no_grad():
        output = models.bloom()(torch.tensor(IDS[:1]), output_attentions=True)
    alpha = output.attentions[0][0].sum(1).numpy() / (10 - np.arange(10))
    np.testing.assert_allclose(run.extras["importance"][0, 0], alpha, atol=CLOSE)


def test_eager_path_of_a_registry_model_gives_the_same_statistics():
    model = models.eager(models.gpt2())
    ours, theirs = record(model, IDS), record(model, IDS, attention="eager")
    for key in ("importance", "first_token_score", "entropy"):
        np.testing.assert_allclose(ours.extras[key], theirs.extras[key], atol=CLOSE)
    np.testing.assert_array_equal(ours.extras["strongest_key"], theirs.extras["strongest_key"])


def test_configuration_mode_and_hooks_are_restored_even_after_a_failure():
    model = models.llama()
    model.train()
    before = model.config._attn_implementation
    record(model, IDS)
    model.model.layers[2].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(model, IDS)
    assert model.config._attn_implementation == model.model.config._attn_implementation == before
    assert model.training
    assert all(not layer._forward_hooks and not layer._forward_pre_hooks for layer in model.model.layers)


def test_training_mode_does_not_let_dropout_in():
    model = models.gpt2(attn_pdrop=0.5, resid_pdrop=0.5)
    quiet = record(model, IDS).positions
    np.testing.assert_array_equal(record(model.train(), IDS).positions, quiet)


class Skips(torch.nn.Module):
    """A block that is never run: its input passes through."""

    def forward(self, hidden_states, **_):
        return hidden_states


def test_a_block_without_attention_is_refused_and_its_states_can_still_be_had():
    model = models.llama()
    model.model.layers[1] = Skips()
    with pytest.raises(kd.UnsupportedModel, match="block 2 made 0 calls of softmax attention"):
        record(model, IDS)
    run = record(model, IDS, attention=None)
    np.testing.assert_array_equal(run.positions[2], run.positions[1])
    assert "importance" not in run.extras


def test_a_layer_that_the_model_leaves_out_is_refused():
    model = models.llama()
    model.config.num_hidden_layers = 2  # the forward pass stops after two of the three blocks
    with pytest.raises(kd.UnsupportedModel, match=r"expected one list of 2 blocks"):
        record(model, IDS)
    with pytest.raises(kd.UnsupportedModel, match=r"2 calls of blocks were seen where .* 3 layers"):
        record(model, IDS, blocks=list(model.model.layers))


def test_a_lost_mask_is_refused():
    """A model that hands no mask to causal attention would silently look ahead."""
    model = models.llama()

    def drop(module, args, kwargs):
        return args, {**kwargs, "attention_mask": None}

    model.model.layers[0].self_attn.register_forward_pre_hook(drop, with_kwargs=True)
    with pytest.raises(kd.UnsupportedModel, match="no attention mask although its attention is causal"):
        record(model, IDS)


def test_options_that_nobody_knows_are_refused_not_ignored():
    model = models.llama()

    def add(module, args, kwargs):
        return args, {**kwargs, "new_bias": torch.zeros(4)}

    model.model.layers[0].self_attn.register_forward_pre_hook(add, with_kwargs=True)
    with pytest.raises(kd.UnsupportedModel, match="new_bias"):
        record(model, IDS)


def test_another_attention_than_softmax_is_refused():
    model = models.llama()
    model.config._attn_implementation_internal = "something_else"
    with pytest.raises(kd.UnsupportedModel, match=r"'something_else', which is not plain softmax"):
        record(model, IDS)


def test_models_that_are_no_stack_over_token_ids_are_refused_with_a_reason():
    import transformers as hf

    vit = hf.ViTModel(hf.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48))
    with pytest.raises(kd.UnsupportedModel, match="takes pixel_values"):
        record(vit, IDS)
    t5 = hf.T5Model(hf.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=50))
    with pytest.raises(kd.UnsupportedModel, match="encoder-decoder"):
        record(t5, IDS)
    with pytest.raises(kd.UnsupportedModel, match="has 0 rows of equal blocks"):
        record(torch.nn.Linear(2, 2), IDS)


def test_saved_and_loaded_again(tmp_path):
    run = record(models.llama(), IDS)
    again = kd.Trajectory.load(run.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.positions, run.positions)
    assert again.meta == run.meta
    assert set(again.extras) == set(run.extras)


def test_a_slice_of_layers_keeps_what_belongs_to_sequences():
    run = record(
        models.llama(), [[1, 2, 3]] * 4
    )  # four sequences and four layers: lengths alone cannot tell them apart
    part = run[1:3]
    assert len(part) == 2
    assert part.extras["lengths"].tolist() == [3, 3, 3, 3]
    assert part.extras["final_norm"].shape == run.extras["final_norm"].shape


def test_progress_counts_sequences():
    seen = []
    record(models.llama(), IDS * 3, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    record(models.llama(), IDS, progress=True)


def test_bad_arguments():
    with pytest.raises(ValueError, match="attention must be"):
        record(models.llama(), IDS, attention="everything")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        record(models.llama(), IDS, batch_size=0)


def test_attention_maps_that_a_model_does_not_return_are_refused_not_left_out():
    """With sdpa transformers returns states and no weights, silently."""
    model = models.llama()
    model.set_attn_implementation("sdpa")
    with pytest.raises(kd.UnsupportedModel, match=r"weights of 0 of 3 blocks, .*'sdpa'; load it with .*'eager'"):
        record(model, IDS, attention="eager")
