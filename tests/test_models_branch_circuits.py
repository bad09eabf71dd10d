"""OV circuits of either branch of a gated model, and of both: against matrices and weights by name, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from krause_dynamics.errors import UnsupportedModel  # noqa: E402
from krause_dynamics.models import branch_circuits, branch_weights  # noqa: E402
from krause_dynamics.nn.attention import WATCHERS  # noqa: E402
from tests import checkpoint_models  # noqa: E402
from tests.test_models_branch_statistics import adapted, language_model  # noqa: E402

IDS = np.random.default_rng(0).integers(0, 23, (2, 11))


def matrices(read, write, heads):
    """(heads, d, d): x -> x W_V W_O of each head, key heads repeated."""
    width = write.weight.shape[1] // heads
    value = read.weight.T.unflatten(1, (-1, width)).transpose(0, 1)
    value = value.repeat_interleave(heads // len(value), 0)
    return (value @ write.weight.T.unflatten(0, (heads, width))).detach().numpy()


def by_name(model):
    """Of every block: who is given the tokens, and the matrices of both branches."""
    heads = model.config.num_attention_heads
    return [
        (part, matrices(part.v_proj, part.o_proj, heads), matrices(part.v_proj_krause, part.o_proj_krause, heads))
        for part in (layer.self_attn for layer in model.model.layers)
    ]


def cosine(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def test_each_branch_and_both_as_the_gate_weighs_them():
    model = adapted()
    blocks, entered = by_name(model), []
    hooks = [
        part.register_forward_pre_hook(lambda m, a, k: entered.append(k["hidden_states"].numpy()), with_kwargs=True)
        for part, *_ in blocks
    ]
    weights = branch_weights(model, torch.tensor(IDS))
    for hook in hooks:
        hook.remove()
    found = branch_circuits(model, IDS, batch_size=2)
    assert found["branch"].values.tolist() == ["softmax", "krause", "mixed"]
    assert not WATCHERS
    for block, (_, one, other) in enumerate(blocks):
        share = weights.gate[block].numpy()  # (b, T, 2)
        x = entered[block][:, None]
        heard = [w[block].numpy() @ x for w in (weights.softmax, weights.krause)]
        a, b = (share[:, None, :, i, None] for i in range(2))
        written = a * (heard[0] @ one) + b * (heard[1] @ other)
        pulls = [
            cosine(heard[0] @ one, heard[0]), cosine(heard[1] @ other, heard[1]),
            cosine(written, a * heard[0] + b * heard[1]),
        ]  # fmt: skip
        mean = share.mean((0, 1))
        whole = np.stack([one, other, mean[0] * one + mean[1] * other])
        size = np.sqrt((whole**2).sum((-2, -1)))
        predicted = np.trace(whole, axis1=-2, axis2=-1) / (np.sqrt(x.shape[-1]) * size)
        at = found.isel(block=block)
        # Gaussian scores and queries are float32 in the statistics of attention: 1e-5 of a cosine.
        np.testing.assert_allclose(at["pull"].sel(side="measured"), np.stack(pulls).mean(-1), atol=2e-5)
        np.testing.assert_allclose(
            at["pull"].sel(side="predicted"), np.repeat(predicted[:, None], len(IDS), 1), atol=1e-5
        )
        for branch, matrix in enumerate(whole):
            expected = np.linalg.eigvals(matrix)
            expected = np.sort(np.abs(expected), -1)[:, ::-1]
            values = (at["ov_real"] + 1j * at["ov_imaginary"]).values[branch]
            rank = int(np.isfinite(values[0]).sum())
            assert rank == (2 if branch == 2 else 1) * model.config.hidden_size // model.config.num_attention_heads
            np.testing.assert_allclose(np.abs(values[:, :rank]), expected[:, :rank], rtol=1e-3, atol=1e-4)
        means = np.stack([*np.moveaxis(share.mean(1), -1, 0), np.ones(len(IDS))])
        np.testing.assert_allclose(at["share"], means, atol=1e-6)  # the pass with weights is eager, in another order


def test_a_gated_model_of_ours_has_them_too_and_its_closed_gate_is_one_branch():
    """Where the gate gives all to one branch, both together are that branch."""
    model = language_model()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "gate." in name and "mlp" not in name:
                weight.zero_()
                if weight.ndim == 1:
                    weight.copy_(torch.tensor([-1e3, 1e3]))
    found = branch_circuits(model, IDS)
    np.testing.assert_allclose(found["share"].sel(branch="krause"), 1.0)
    one, both = (found.sel(branch=name) for name in ("krause", "mixed"))
    np.testing.assert_allclose(both["pull"], one["pull"], atol=1e-6)
    rank = int(np.isfinite(one["ov_real"][0, 0]).sum())
    assert rank == 8
    np.testing.assert_allclose(both["ov_real"][..., :rank], one["ov_real"][..., :rank], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(both["ov_real"][..., rank:], 0.0, atol=1e-6)
    assert not np.allclose(found["ov_real"].sel(branch="softmax"), one["ov_real"], equal_nan=True)


def test_a_model_of_one_branch_is_sent_to_the_forecast():
    with pytest.raises(UnsupportedModel, match=r"no gate between two branches; kd\.checkpoints\.forecast"):
        branch_circuits(checkpoint_models.llama(), IDS)
    with pytest.raises(UnsupportedModel, match=r"no gate .* runs, as one that is closed"):
        branch_circuits(adapted(gate="closed"), IDS)
    with pytest.raises(ValueError, match=r"must be float32 .* torch\.bfloat16 rounds away"):
        branch_circuits(adapted().bfloat16(), IDS)
