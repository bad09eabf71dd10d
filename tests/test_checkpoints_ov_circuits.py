"""OV circuits of heads: against matrices of the models' own layers by name, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import forecast, record
from tests import checkpoint_models as models

IDS = np.random.default_rng(0).integers(0, 50, (2, 12))
WIDTH, HEADS = 32, 4


def lora(seed=0):
    import peft

    adapted = peft.get_peft_model(models.llama(seed), peft.LoraConfig(r=2, target_modules=["v_proj", "o_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    return adapted.eval()


def of_llama(model):
    """(blocks, heads, d, d): x -> x W_V W_O, key heads repeated, adapters merged into the matrices."""
    found = []
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    for layer in model.model.layers:
        v = layer.self_attn.v_proj.weight.T.unflatten(1, (-1, 8)).transpose(0, 1).repeat_interleave(2, 0)
        o = layer.self_attn.o_proj.weight.T.unflatten(0, (HEADS, 8))
        found.append((v.double() @ o.double()).detach())
    return torch.stack(found).numpy()


def of_gpt2(model):
    """Values are the last third of one product, weights (in, out)."""
    found = []
    for layer in model.transformer.h:
        v = layer.attn.c_attn.weight[:, 2 * WIDTH :].unflatten(1, (HEADS, 8)).transpose(0, 1)
        found.append((v.double() @ layer.attn.c_proj.weight.unflatten(0, (HEADS, 8)).double()).detach())
    return torch.stack(found).numpy()


def of_bert(model):
    """The product that reads the heads lies outside of the module that attends."""
    found = []
    for layer in model.encoder.layer:
        v = layer.attention.self.value.weight.T.unflatten(1, (HEADS, 8)).transpose(0, 1)
        o = layer.attention.output.dense.weight.T.unflatten(0, (HEADS, 8))
        found.append((v.double() @ o.double()).detach())
    return torch.stack(found).numpy()


FAMILIES = {
    "llama": (models.llama, of_llama, "model.layers.{}.self_attn"),
    "gpt2": (models.gpt2, of_gpt2, "transformer.h.{}.attn"),
    "bert": (models.bert, of_bert, "encoder.layer.{}.attention.self"),
    "lora": (lora, of_llama, "base_model.model.model.layers.{}.self_attn"),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_eigenvalues_and_pulls_are_those_of_the_matrices(kind):
    build, matrices, path = FAMILIES[kind]
    model = build()
    found = forecast(model, IDS)
    inside: list[torch.Tensor] = []
    hooks = [
        model.get_submodule(path.format(i)).register_forward_pre_hook(
            lambda m, args, kwargs: inside.append((args or [kwargs["hidden_states"]])[0].double().detach()),
            with_kwargs=True,
        )
        for i in range(found.sizes["block"])
    ]
    weights = record(model, IDS, attention="weights", batch_size=2).extras["attention"]
    for hook in hooks:
        hook.remove()
    heard = weights.astype(float) @ torch.stack(inside).numpy()[:, :, None]  # (blocks, sequences, heads, T, d)
    ov = matrices(model)
    written = np.einsum("lshtd,lhde->lshte", heard, ov)
    cosines = (written * heard).sum(-1) / np.linalg.norm(written, axis=-1) / np.linalg.norm(heard, axis=-1)
    np.testing.assert_allclose(found["pull"].sel(side="measured"), cosines.mean(-1).swapaxes(0, 1), atol=1e-5)
    traces = np.trace(ov, axis1=2, axis2=3)
    predicted = traces / np.sqrt(WIDTH) / np.linalg.norm(ov, axis=(2, 3))
    np.testing.assert_allclose(found["pull"].sel(side="predicted")[0], predicted, atol=1e-6)
    values = np.linalg.eigvals(ov)  # of the whole matrices: 24 of 32 are 0
    np.testing.assert_allclose(found["ov_real"].sum("eigenvalue"), traces, atol=1e-4)
    largest = np.sort(np.abs(values), -1)[..., ::-1][..., :8]
    ours = np.hypot(found["ov_real"], found["ov_imaginary"])
    np.testing.assert_allclose(ours, largest, atol=1e-3 * largest.max())
    np.testing.assert_allclose(found["ov_sign"], values.real.sum(-1) / np.abs(values).sum(-1), atol=1e-3)


def test_the_predicted_pull_is_that_of_directions_that_prefer_none():
    """10^5 directions: to leading order in 1/d, here within 2 per cent of the pull's scale beside sampling."""
    model = models.llama()
    predicted = forecast(model, IDS)["pull"].sel(side="predicted")[0, 0]
    m = np.random.default_rng(0).normal(size=(100_000, WIDTH))
    for head, ov in enumerate(of_llama(model)[0]):
        y = m @ ov
        mean = ((y * m).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(m, axis=1)).mean()
        assert abs(mean - float(predicted[head])) < 0.01


def test_heads_that_attract_and_heads_that_repel():
    """W_OV = c times the projection on a head's own coordinates: eigenvalues c, pull of one sign, no mode of c < 0."""
    model = models.llama(num_key_value_heads=HEADS)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight.data = torch.eye(WIDTH)
        layer.self_attn.o_proj.weight.data = torch.diag(0.5 * signs.repeat_interleave(8))
    found = forecast(model, IDS)
    for head, sign in enumerate(signs.tolist()):
        of = found.isel(head=head)
        np.testing.assert_allclose(of["ov_real"], 0.5 * sign, atol=1e-6)
        np.testing.assert_allclose(of["ov_imaginary"], 0, atol=1e-6)
        np.testing.assert_allclose(of["ov_sign"], sign)
        np.testing.assert_allclose(of["pull"].sel(side="predicted"), sign * np.sqrt(8 / WIDTH), rtol=1e-5)
        assert (np.sign(of["pull"].sel(side="measured")) == sign).all()
        betas = of["effective_beta"].values
        expected = [kd.theory.winning_mode(float(b), dimension=11) for b in betas.ravel()]
        np.testing.assert_array_equal(of["head_mode"].values.ravel(), expected if sign > 0 else np.zeros(betas.size))


class Own(torch.nn.Module):
    """Blocks of one's own: attention of torch with grouped keys, a softmax layer of ours, or a Krause layer."""

    def __init__(self, kind):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Attending(kind) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Attending(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.norm, self.kind = torch.nn.LayerNorm(WIDTH), kind
        if kind == "torch":
            self.attention_of = torch.nn.Linear(WIDTH, WIDTH + 2 * 16)  # queries, then keys and values of two heads
            self.back = torch.nn.Linear(WIDTH, WIDTH)
        else:
            words = {"window": 5, "top_k": 3, "causal": True} if kind == "krause" else {"score": "dot"}
            self.attention = kd.nn.KrauseAttention(WIDTH, HEADS, kv_heads=2, **words)

    def forward(self, x):
        inside = self.norm(x)
        if self.kind != "torch":
            return x + self.attention(inside)
        q, k, v = (
            y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in self.attention_of(inside).split((WIDTH, 16, 16), -1)
        )
        heard = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return x + self.back(heard.transpose(1, 2).flatten(2))


def own(kind):
    torch.manual_seed(0)
    if kind in ("batch", "time"):
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=kind == "batch", norm_first=True)
        return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    if kind == "krause model":
        sizes = {"num_hidden_layers": 2, "num_attention_heads": HEADS, "score": "gaussian", "window": 6}
        config = kd.models.KrauseLMConfig(**models.SMALL, **sizes, support="window+top_k", attention_top_k=4)
        return kd.models.KrauseLM(config).eval()
    return Own(kind).eval()


def of_own(kind, model):
    """(what enters attention in each block, W_V (h, d, 8), W_O (h, 8, d)) by the names of the modules."""
    found = []
    for block in model.blocks if isinstance(model, Own) else model.layers:
        if kind in ("batch", "time"):
            module, v, o = block.self_attn, block.self_attn.in_proj_weight[-WIDTH:], block.self_attn.out_proj.weight
        elif kind == "torch":
            module, v, o = block.attention_of, block.attention_of.weight[-16:], block.back.weight
        else:
            module, v, o = block.attention.v_proj, block.attention.v_proj.weight, block.attention.out_proj.weight
        read = v.T.unflatten(1, (-1, 8)).transpose(0, 1)
        read = read.repeat_interleave(HEADS // len(read), 0).double().detach()
        found.append((module, read.numpy(), o.T.unflatten(0, (HEADS, 8)).double().detach().numpy()))
    return found


@pytest.mark.parametrize("kind", ["torch", "softmax", "krause", "batch", "time", "krause model"])
def test_modules_of_ones_own_and_krause_rules(kind):
    model = own(kind)
    inputs = IDS if kind == "krause model" else np.random.default_rng(1).normal(size=(2, 12, WIDTH)).astype(np.float32)
    named, inside = of_own(kind, model), []
    hooks = [
        module.register_forward_pre_hook(lambda m, args: inside.append(args[0].double().detach().numpy()))
        for module, *_ in named
    ]
    weights = record(model, inputs, attention="weights", batch_size=2).extras["attention"].astype(float)
    for hook in hooks:
        hook.remove()
    entered = [x.swapaxes(0, 1) if kind == "time" else x for x in inside[-2:]]
    found = forecast(model, inputs)
    for block, (x, (_, read, written)) in enumerate(zip(entered, named, strict=True)):
        heard = weights[block] @ x[:, None]
        wrote = heard @ read @ written
        cosine = (wrote * heard).sum(-1) / np.linalg.norm(wrote, axis=-1) / np.linalg.norm(heard, axis=-1)
        np.testing.assert_allclose(found["pull"].sel(side="measured")[:, block], cosine.mean(-1), atol=1e-5)
        values = np.linalg.eigvals(read @ written)
        np.testing.assert_allclose(found["ov_real"][block].sum("eigenvalue"), values.real.sum(-1), atol=1e-4)
        np.testing.assert_allclose(found["ov_sign"][block], values.real.sum(-1) / np.abs(values).sum(-1), atol=1e-3)


def test_attention_that_hands_out_its_weights_has_no_circuits_and_all_the_rest():
    found = forecast(models.bloom(), IDS)
    assert "pull" not in found
    assert np.isfinite(found["contraction"]).all()
