"""`krause_attention`: equal to the definition through every option, to published formulas, and calm under bad input."""

from __future__ import annotations

import math

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.interaction.neighbourhoods import All
from krause_dynamics.nn import explain, krause_attention, sparse_weights

NEVER = -float("inf")


def points(*shape, dtype=torch.float64, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_(grad)


def qkv(heads=4, kv_heads=2, n=40, d=16, batch=2, dtype=torch.float64, grad=False):
    return (
        points(batch, heads, n, d, seed=1, dtype=dtype, grad=grad),
        points(batch, kv_heads, n, d, seed=2, dtype=dtype, grad=grad),
        points(batch, kv_heads, n, d, seed=3, dtype=dtype, grad=grad),
    )


OPTIONS = {
    "window": {"window": 9, "top_k": 4},
    "centred": {"neighbourhood": kd.Window(9, two_sided=True) & kd.TopK(3, ties="keep")},
    "causal window": {"window": 9, "causal": True},
    "picture": {"grid": kd.Grid(3, 13, radius=2, prefix=1), "top_k": 3},
    "cross": {"neighbourhood": kd.Grid(4, 10, metric="manhattan")},
    "softmax": {"causal": True, "score": "dot"},
    "softmax by sigma": {"window": 9, "score": "dot"},
    "packed": {"window": 9, "neighbourhood": kd.Segments(torch.tensor([0, 10, 25, 40]))},
    "padded": {"window": 7, "top_k": 3, "key_valid": torch.arange(40) >= torch.tensor([[5], [0]])},
    "pair bias": {"window": 5, "top_k": 2, "pair_bias": points(4, 40, 40)},
    "key bias": {"window": 5, "top_k": 2, "key_bias": points(2, 40)},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_banded_equals_the_reference(name):
    q, k, v = qkv(grad=True)
    sigma = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    results = []
    for impl in ("reference", "banded"):
        out, log_partition = krause_attention(
            q, k, v, sigma=sigma, impl=impl, return_log_partition=True, **OPTIONS[name]
        )
        finite = torch.where(log_partition > NEVER, log_partition, 0.0)
        gradients = torch.autograd.grad((out * points(*out.shape)).sum() + finite.sum(), [q, k, v, sigma])
        results.append((out, log_partition, *gradients))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_the_numpy_definition_says_the_same():
    """The same `Interaction` through `kd.aggregate` on numpy arrays: one rule, two worlds."""
    q, k, v = qkv(heads=2)
    mine = krause_attention(q, k, v, sigma=1.5, window=9, top_k=4)
    rule = kd.krause(1.5, kd.Window(9) & kd.TopK(4))
    theirs = kd.aggregate(rule, q.numpy(), k.numpy(), v.numpy(), impl="reference").mean
    torch.testing.assert_close(mine, torch.from_numpy(theirs), rtol=1e-11, atol=1e-11)


def test_dot_products_are_torch_attention():
    q, k, v = qkv(heads=2)
    mine = krause_attention(q, k, v, score="dot", causal=True)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_on_the_sphere_krause_with_sigma_is_softmax_with_one_over_sigma_squared():
    q, k, v = (torch.nn.functional.normalize(x, dim=-1) for x in qkv(heads=2))
    krause = krause_attention(q, k, v, sigma=0.4, window=9, top_k=4)
    softmax = krause_attention(q, k, v, sigma=0.4, score="dot", window=9, top_k=4)
    torch.testing.assert_close(krause, softmax, rtol=1e-10, atol=1e-10)


# --- the published variants, each formula written out -------------------------------------------------------------


def top_k_mask(scores, k):
    """Exactly k positions a row, as `torch.topk` picks them; only finite ones count."""
    picked = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(k, dim=-1).indices, True)
    return picked & scores.isfinite()


@pytest.mark.parametrize(("metric", "radius", "k"), [("manhattan", 1, 3), ("chebyshev", 2, 8)])
def test_kvit(metric, radius, k):
    """KViT: direct differences, log sigma a layer, a neighbourhood of patches, CLS row and column, exactly k keys."""
    side, log_sigma = 6, torch.tensor(math.log(2.5), dtype=torch.float64)
    q, k_, v = qkv(heads=3, kv_heads=3, n=side * side + 1)
    cell = torch.arange(side * side)
    dr = (cell[:, None] // side - cell // side).abs()
    dc = (cell[:, None] % side - cell % side).abs()
    near = (dr + dc <= 1) if metric == "manhattan" else (torch.maximum(dr, dc) <= 2)
    mask = torch.ones(side * side + 1, side * side + 1, dtype=torch.bool)
    mask[1:, 1:] = near
    scores = -0.5 * torch.exp(-2 * log_sigma) * (q[..., :, None, :] - k_[..., None, :, :]).square().sum(-1)
    scores = scores.masked_fill(~mask, NEVER)
    theirs = scores.masked_fill(~top_k_mask(scores, k), NEVER).softmax(-1) @ v
    patch = kd.Grid(side, side, radius, metric, prefix=1)
    mine = krause_attention(q, k_, v, patch, sigma=log_sigma.exp(), top_k=k)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_karm():
    """KARM: expanded squares, log sigma (H, 1, 1), W keys with self, exactly k positions."""
    q, k, v = qkv(heads=4, kv_heads=4, n=60)
    log_sigma = torch.tensor([0.3, 0.6, 0.9, 1.2], dtype=torch.float64)[:, None, None]
    squared = q.square().sum(-1)[..., None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT
    scores = squared / (-2 * torch.exp(2 * log_sigma))
    i = torch.arange(60)
    scores = scores.masked_fill((i > i[:, None]) | (i < i[:, None] - 12 + 1), NEVER)
    theirs = scores.masked_fill(~top_k_mask(scores, 9), NEVER).softmax(-1) @ v
    mine = krause_attention(q, k, v, sigma=log_sigma.exp(), window=12, top_k=9)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_kswin():
    """KSwin: q, k scaled by d^-1/2, a clamp at 1e-12, a relative bias, -100 between shifted regions, log sigma (H,)."""
    q, k, v = qkv(heads=4, kv_heads=4, n=16, batch=3)
    log_sigma = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    bias, region = points(4, 16, 16, seed=7), torch.arange(16) // 8
    shifted = torch.where(region[:, None] != region, -100.0, 0.0).double()
    qs, ks = q / 4.0, k / 4.0  # d = 16
    squared = (qs[..., :, None, :] - ks[..., None, :, :]).square().sum(-1).clamp(min=1e-12)
    scores = -0.5 * torch.exp(-2 * log_sigma)[:, None, None] * squared + bias + shifted
    mine = krause_attention(qs, ks, v, sigma=log_sigma.exp(), pair_bias=bias + shifted)
    torch.testing.assert_close(mine, scores.softmax(-1) @ v, rtol=1e-11, atol=1e-11)


def test_a_bias_is_broadcast_along_axes_of_one():
    q, k, v = qkv(heads=4, kv_heads=4, n=16, batch=3)
    bias = points(4, 16, 16, seed=7)
    for part in (bias[:1], bias[:, :1], bias[:, :, :1], bias[None, :1]):
        whole = part.expand(3, 4, 16, 16).contiguous()
        one, other = (krause_attention(q, k, v, window=12, pair_bias=b) for b in (part, whole))
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_hybrid_branch():
    """Krause branch of Llama and Qwen: grouped heads, finfo.min outside, all that reach the k-th score stay."""
    q, k, v = qkv(heads=4, kv_heads=2, n=50)
    sigma = torch.tensor([5.5, 4.0, 3.0, 2.0], dtype=torch.float64)
    full_k, full_v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    squared = q.square().sum(-1)[..., None] + full_k.square().sum(-1)[..., None, :] - 2 * q @ full_k.mT
    lowest = torch.finfo(torch.float64).min
    i = torch.arange(50)
    scores = squared / (-2 * sigma[:, None, None] ** 2)
    scores = scores.masked_fill((i > i[:, None]) | (i < i[:, None] - 32 + 1), lowest)
    threshold = scores.topk(16, dim=-1).values[..., -1:]
    theirs = scores.masked_fill(scores < threshold, lowest).softmax(-1) @ full_v
    mine = krause_attention(q, k, v, neighbourhood=kd.Window(32) & kd.TopK(16, ties="keep"), sigma=sigma)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


# --- sparse weights, dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["window", "centred", "picture", "padded", "packed", "key bias"])
def test_sparse_weights_are_the_dense_ones(name):
    q, k, _ = qkv()
    options = {**OPTIONS[name], "sigma": 2.0}
    index, weight = sparse_weights(q, k, **options)
    identity = torch.eye(40, dtype=torch.float64).expand(2, 2, -1, -1)
    dense = krause_attention(q, k, identity, **options)
    scattered = torch.zeros(2, 4, 40, 41, dtype=torch.float64)
    scattered.scatter_(-1, torch.where(index < 0, 40, index), weight)
    torch.testing.assert_close(scattered[..., :40], dense, rtol=1e-11, atol=1e-11)
    assert bool(((index[..., 1:] > index[..., :-1]) | (index[..., 1:] < 0)).all())


def test_dropout_drops_that_share_keeps_the_mean_and_is_redrawn():
    x = torch.zeros(1, 1, 2000, 4)  # all weights alike: what is left of the row sum is the share kept
    ones = torch.ones(1, 1, 2000, 1)
    torch.manual_seed(0)
    first, second = (krause_attention(x, x, ones, window=64, dropout=0.25) for _ in range(2))
    assert not torch.equal(first, second)
    # 2000 rows of 64 Bernoulli draws each, in units 1/(1-p): five standard errors of the grand mean.
    assert abs(float(first[:, :, 64:].mean()) - 1) < 5 * math.sqrt(0.25 / 0.75 / 64 / 1936)
    torch.manual_seed(0)
    assert torch.equal(first, krause_attention(x, x, ones, window=64, dropout=0.25))


def test_gradient_through_dropout_uses_the_same_mask():
    q, k, v = qkv(n=12, grad=True)

    def run(q, k, v):
        torch.manual_seed(1)
        return krause_attention(q, k, v, window=5, top_k=3, dropout=0.4)

    assert torch.autograd.gradcheck(run, (q[:1, :2, :6], k[:1, :1, :6], v[:1, :1, :6]))


# --- implementations of GPUs, as far as a CPU can tell -----------------------------------------------------------


@pytest.mark.parametrize("name", ["window", "centred", "causal window", "picture", "cross"])
def test_the_mask_of_flex_is_that_of_the_definition(name):
    from krause_dynamics.forms.attention import flex
    from krause_dynamics.interaction import Request, reference
    from krause_dynamics.nn.hearing import hearing

    heard, i = hearing(**{"neighbourhood": None, **OPTIONS[name]}), torch.arange(40)
    heard = All(tuple(part for part in heard.parts if not isinstance(part, kd.TopK)))
    mine = flex._mask_function(heard.reach, 0, 40)(0, 0, i[:, None], i[None])
    x = points(40, 3)
    assert torch.equal(mine, reference.admitted(kd.Interaction(kd.Flat(), heard), Request.of(x)))


@pytest.mark.parametrize("score", ["gaussian", "dot"])
def test_a_distance_is_a_product_with_a_bias_per_key(score):
    """What the kernels compute, ``a <q, k> + key_bias`` and ``b |q|^2`` afterwards, written densely."""
    from krause_dynamics.interaction.reach import Reach
    from krause_dynamics.nn.arguments import call_of

    q, k, v = qkv(grad=True)
    valid = torch.arange(40) >= torch.tensor([[5], [0]])
    sigma = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    dirty = torch.where(valid[:, None, :, None], k, math.nan)
    call = call_of(q, dirty, v, Reach(), sigma=sigma, score=score, key_valid=valid)
    logits = call.scale[..., None, None] * (q @ k.repeat_interleave(2, 1).mT)
    logits = logits + call.key_bias()[..., None, :]
    mine = logits.softmax(-1) @ v.repeat_interleave(2, 1)
    theirs, log_partition = krause_attention(
        q, k, v, sigma=sigma, score=score, key_valid=valid, return_log_partition=True
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(logits.logsumexp(-1) + call.query_term(), log_partition, rtol=1e-10, atol=1e-10)
    weights = points(*mine.shape, seed=4)
    ours, others = (torch.autograd.grad((x * weights).sum(), [q, k, sigma]) for x in (mine, theirs))
    for a, b in zip(ours, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("impl", "word"), [("triton", "CUDA"), ("flex", "CUDA")])
def test_kernels_of_gpus_refuse_cpu_tensors_with_a_way_out(impl, word):
    q, k, v = qkv(dtype=torch.float32)
    with pytest.raises(kd.UnsupportedImplementation, match=word) as error:
        krause_attention(q, k, v, window=9, impl=impl)
    assert "banded" in str(error.value)


# --- living with torch ------------------------------------------------------------------------------------------


def test_compiles_without_graph_breaks_and_not_again_for_another_length():
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter, dynamic=True)
    def run(q, k, v, log_sigma):
        return krause_attention(q, k, v, sigma=log_sigma.exp(), window=9, top_k=4)

    log_sigma, compiled = torch.zeros(4, requires_grad=True), []
    for n in (40, 57, 300):
        q, k, v = qkv(n=n, dtype=torch.float32, grad=True)
        out = run(q, k, v, log_sigma)
        out.square().sum().backward()
        assert torch.equal(out, krause_attention(q, k, v, sigma=log_sigma.exp(), window=9, top_k=4))
        assert float(log_sigma.grad.abs().sum()) > 0
        compiled.append(counter.frame_count)
    assert compiled[0] == compiled[-1]


@pytest.mark.filterwarnings("ignore:.*jit.script.*")  # torch's own, on its first use of forward mode
def test_forward_mode_and_transforms_run_on_the_reference():
    q, k, v = qkv(n=10)
    tangent = points(*q.shape, seed=5)

    def run(q):
        return krause_attention(q, k, v, window=5, top_k=3)

    _, derivative = torch.func.jvp(run, (q,), (tangent,))
    step = 1e-6
    numeric = (run(q + step * tangent) - run(q - step * tangent)) / (2 * step)
    torch.testing.assert_close(derivative, numeric, rtol=1e-6, atol=1e-8)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, tangent)
        out = torch.autograd.forward_ad.unpack_dual(run(dual))
        torch.testing.assert_close(out.tangent, derivative)
        with pytest.raises(kd.UnsupportedImplementation, match="forward-mode"):
            krause_attention(dual, k, v, window=5, impl="banded")
    batched = torch.func.vmap(run)(torch.stack([q, q + 1]))
    torch.testing.assert_close(batched[1], run(q + 1), rtol=1e-11, atol=1e-11)


def test_autocast_takes_the_half_type_and_checkpointing_repeats_the_step():
    q, k, v = qkv(dtype=torch.float32, grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert krause_attention(q, k, v, window=9, top_k=4).dtype == torch.bfloat16

    def run(q, k, v):
        return krause_attention(q, k, v, window=9, top_k=4, dropout=0.3)

    torch.manual_seed(0)
    plain = torch.autograd.grad(run(q, k, v).square().sum(), (q, k, v))
    torch.manual_seed(0)
    again = torch.utils.checkpoint.checkpoint(run, q, k, v, use_reentrant=False)
    for a, b in zip(plain, torch.autograd.grad(again.square().sum(), (q, k, v)), strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_are_refused_rather_than_wrong():
    q, k, v = qkv(n=8, grad=True)
    (gradient,) = torch.autograd.grad(krause_attention(q, k, v, window=4).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), q)


def test_auto_says_what_it_chose_and_why():
    q, k, v = qkv()
    name, reason = explain(q, k, v, window=9, top_k=4)
    assert name == "banded"
    assert reason
    assert explain(q, k, v, window=9, impl="reference") == ("reference", "asked for")


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window": 0}, ValueError, "Window size"),
        ({"top_k": 0}, ValueError, "TopK k"),
        ({"sigma": 0.0}, ValueError, "sigma must be positive"),
        ({"sigma": -1.0}, ValueError, "sigma must be positive"),
        ({"sigma": math.nan}, ValueError, "sigma must be positive"),
        ({"sigma": torch.tensor([1.0, math.nan])}, ValueError, "sigma must be positive"),
        ({"sigma": torch.ones(3)}, ValueError, "one per head"),
        ({"sigma": 1.0, "scale": 1.0}, ValueError, "not both"),
        ({"score": "cosine"}, ValueError, "score"),
        ({"grid": (4, 4)}, ValueError, "16 tokens"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"key_valid": torch.ones(2, 20)}, TypeError, "boolean"),
        ({"key_valid": torch.ones(2, 19, dtype=torch.bool)}, ValueError, "key_valid"),
        ({"pair_bias": torch.ones(20, 20, dtype=torch.bool)}, TypeError, "log-weights"),
        ({"pair_bias": torch.ones(3, 20, 20)}, ValueError, "broadcast"),
        ({"pair_bias": torch.ones(2, 20)}, ValueError, "broadcast"),
        ({"key_bias": torch.ones(5)}, ValueError, "broadcast"),
        ({"neighbourhood": kd.Segments(torch.tensor([0, 5, 19]))}, ValueError, "rise from 0 to 20"),
        ({"neighbourhood": kd.Within(1.0)}, ValueError, "Within is not one of .* kd.aggregate takes any"),
        ({"neighbourhood": kd.TopK(3), "top_k": 4}, ValueError, "at most one TopK"),
        ({"neighbourhood": 9}, TypeError, "value such as kd.Window"),
        ({"grid": 20}, ValueError, "height, width"),
        ({"grid": (4, 5), "query_offset": 3}, ValueError, "whole pictures"),
        ({"query_offset": 1.5}, TypeError, "whole number"),
        ({"sigma": "wide"}, TypeError, "number or a floating tensor, got str"),
        ({"sigma": torch.tensor(2)}, TypeError, "floating tensor, got torch.int64"),
        ({"scale": math.inf}, ValueError, "scale must be positive"),
        ({"scale": math.nan, "score": "dot"}, ValueError, "scale must be finite"),
        ({"dropout": None}, ValueError, "dropout"),
        ({"key_valid": [[True] * 20] * 2}, TypeError, "boolean tensor, got list"),
        ({"key_bias": 2.0}, TypeError, "floating tensor, got float"),
        ({"key_bias": torch.ones(4, 20)}, ValueError, r"broadcast to \(2, 20\), got \(4, 20\)"),
        ({"pair_bias": 2.0}, TypeError, "floating tensor, got float"),
        ({"impl": "fast"}, kd.UnsupportedImplementation, "impl must be"),
        ({"impl": "reference", "dropout": 0.5}, kd.UnsupportedImplementation, "dropout"),
    ],
)
def test_bad_options_say_what_is_wrong(options, error, words):
    q, k, v = qkv(heads=2, n=20, dtype=torch.float32)
    with pytest.raises(error, match=words):
        krause_attention(q, k, v, **options)


def test_bad_tensors_say_what_is_wrong():
    q, k, v = qkv(heads=4, kv_heads=2, n=20)
    with pytest.raises(ValueError, match="batch, heads, tokens, dim"):
        krause_attention(q[0], k, v)
    with pytest.raises(ValueError, match="do not fit"):
        krause_attention(q, k[..., :8], v)
    with pytest.raises(ValueError, match="divide"):
        krause_attention(q[:, :3], k, v)
    with pytest.raises(TypeError, match="dtype"):
        krause_attention(q, k.float(), v)
    with pytest.raises(TypeError, match="float64, float32"):
        krause_attention(q.int(), k.int(), v.int())
    with pytest.raises(TypeError, match="torch tensor"):
        krause_attention(q.numpy(), k, v)
    with pytest.raises(TypeError, match="torch tensor"):
        explain(q.numpy(), k, v)
    with pytest.raises(ValueError, match="at least 1"):
        krause_attention(q[..., :0], k[..., :0], v)
    for function in (lambda **o: explain(q, k, v, **o), lambda **o: sparse_weights(q, k, **o)):
        with pytest.raises(TypeError, match="no argument 'windw'; did you mean 'window'"):
            function(windw=4)


@pytest.mark.parametrize(("n", "m", "batch"), [(0, 9, 2), (5, 0, 2), (0, 0, 2), (5, 9, 0)])
def test_no_query_no_key_or_no_batch_gives_an_empty_answer(n, m, batch):
    """Also a gradient of 0 rather than none."""
    q, k, v = (points(batch, 2, size, 8, dtype=torch.float32, grad=True) for size in (n, m, m))
    out, log_partition = krause_attention(q, k, v, window=4, top_k=2, return_log_partition=True)
    assert out.shape == (batch, 2, n, 8)
    assert not out.any()
    assert bool((log_partition == NEVER).all())
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_shapes_follow_without_data():
    """On the meta device nothing is computed, and the shapes are those of the result."""
    q, k, v = (x.to("meta") for x in qkv(dtype=torch.float32))
    assert krause_attention(q, k, v, window=9, top_k=4).shape == q.shape
