"""Sinks, entropy and strongest keys against loops over the definitions, and on weights with known answers."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import krause_dynamics as kd
from krause_dynamics.aggregate import weight_blocks
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_pass import attend
from krause_dynamics.checkpoints.attention_statistics import DISTANCES, sink_rate, statistics_of
from krause_dynamics.checkpoints.sampled_rows import sampled_rows
from krause_dynamics.forms.attention import sums as fused
from krause_dynamics.forms.attention.softcap import SoftCapped

CLOSE = 1e-5  # float32 sums of some hundred weights


def loops(weights: np.ndarray, visible: np.ndarray, causal: bool, min_queries: int = 8):
    """The definitions, one (T, T) matrix at a time."""
    length = len(weights)
    queries = [int(visible[:, k].sum()) for k in range(length)]
    alpha = [sum(weights[i, k] for i in range(length)) / queries[k] for k in range(length)]
    full = [sum(weights[i, k] for i in range(length)) / (length - k if causal else length) for k in range(length)]
    score = sum(weights[i, 0] for i in range(1, length)) / (length - 1)
    rows = []
    for i in range(length):
        seen = int(visible[i].sum())
        if seen > 1:
            rows.append(-sum(a * math.log(a) for a in weights[i] if a > 0) / math.log(seen))
    wanted = min(min_queries, max(queries)) if length >= min_queries else min_queries
    enough = [k for k in range(length) if queries[k] >= wanted]
    return alpha, full, score, sum(rows) / len(rows), max(enough, key=lambda k: alpha[k]) if enough else -1


def further_loops(weights: np.ndarray, visible: np.ndarray):
    """First by quarter, self weight, mean distance, distance profile: definitions of one (T, T) matrix."""
    length = len(weights)
    quarter = [[i for i in range(length) if 4 * i // length == g and visible[i, 0]] for g in range(4)]
    first = [np.mean([weights[i, 0] for i in rows]) if rows else np.nan for rows in quarter]
    pairs = [(abs(i - k), weights[i, k]) for i in range(length) for k in range(length)]
    far = sum(o * a for o, a in pairs) / length
    ends = [*DISTANCES, np.inf]
    bins = [sum(a for o, a in pairs if ends[b] <= o < ends[b + 1]) / length for b in range(len(DISTANCES))]
    return first, np.mean(np.diag(weights)), far, bins


@pytest.mark.parametrize("mask", ["causal", "window", "none"])
@pytest.mark.parametrize("length", [12, 3, 261])
def test_statistics_equal_loops_over_the_definitions(mask, length, monkeypatch):
    monkeypatch.setattr(weight_blocks, "CPU_PAIRS", 1 << 17)  # the longest takes several blocks
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, heads, length, 6, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    index = torch.arange(length)
    lag = index[:, None] - index
    visible = {"causal": lag >= 0, "window": (lag >= 0) & (lag < 4), "none": lag > -length}[mask]
    given = None if mask == "none" else visible[None, None]
    output, found = attend(q.float(), k.float(), v.float(), given, keep_weights=True)
    _, sampled = attend(q.float(), k.float(), v.float(), given)
    scores = (q @ k.repeat_interleave(2, 1).mT / math.sqrt(6)).masked_fill(~visible, -torch.inf)
    expected = torch.softmax(scores, -1)
    np.testing.assert_allclose(found.weights, expected, atol=CLOSE)
    np.testing.assert_allclose(output, expected @ v.repeat_interleave(2, 1), atol=CLOSE)
    for b, h in ((0, 0), (1, 3)):
        alpha, full, score, entropy, strongest = loops(expected[b, h].numpy(), visible.numpy(), mask != "none")
        np.testing.assert_allclose(found.importance[b, h], alpha, atol=CLOSE)
        np.testing.assert_allclose(found.published_importance[b, h], full, atol=CLOSE)
        assert float(found.first_token_score[b, h]) == pytest.approx(score, abs=CLOSE)
        assert float(found.entropy[b, h]) == pytest.approx(entropy, abs=CLOSE)
        assert int(found.strongest_key[b, h]) == strongest
        quarters, own, far, bins = further_loops(expected[b, h].numpy(), visible.numpy())
        np.testing.assert_allclose(found.first_by_quarter[b, h], quarters, atol=CLOSE)
        assert float(found.self_weight[b, h]) == pytest.approx(own, abs=CLOSE)
        assert float(found.mean_distance[b, h]) == pytest.approx(far, rel=CLOSE)
        np.testing.assert_allclose(found.distance_profile[b, h], bins, atol=CLOSE)
        rows = sampled_rows(length)
        for distances, at in ((sampled.head_distance, rows), (found.head_distance, index)):
            gaps = [np.linalg.norm(expected[b, h, at] - expected[b, g, at]) / (2 * len(at)) ** 0.5 for g in range(4)]
            np.testing.assert_allclose(distances[b, h], gaps, atol=1e-4)  # a root of a difference
        best = expected[b, h, rows].argsort(dim=-1, descending=True)[:, :3]
        held = expected[b, h, rows].gather(-1, best) > 0
        np.testing.assert_array_equal(found.top_keys[b, h, :, :3], torch.where(held, best, -1)[:, :8])
    if mask == "causal":
        first = (1 + (length - 1) * found.first_token_score) / length
        np.testing.assert_allclose(found.importance[..., 0], first, atol=CLOSE)
    whole = statistics_of(expected, keep_weights=True)
    for name in (field.name for field in fields(whole) if field.name not in ("weights", "top_keys")):
        np.testing.assert_allclose(getattr(whole, name), getattr(found, name), atol=1e-4, err_msg=name)


def test_additive_masks_of_any_kind_mean_the_same():
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(1, 2, 9, 4, generator=generator)
    visible = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    bias = torch.randn(1, 2, 9, 9, generator=generator)
    additive = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    expected = attend(q, q, q, visible, keep_weights=True)[1].weights
    np.testing.assert_array_equal(attend(q, q, q, additive, keep_weights=True)[1].weights, expected)
    joined = attend(q, q, q, torch.where(visible, bias, -torch.inf), keep_weights=True)[1].weights
    apart = attend(q, q, q, visible, bias=bias, keep_weights=True)[1].weights
    np.testing.assert_allclose(joined, apart, atol=1e-6)


def test_all_attention_on_the_first_token():
    """alpha_0 = 1, entropy 0, and no other key has any."""
    weights = torch.zeros(1, 1, 10, 10)
    weights[..., 0] = 1
    found = statistics_of(weights)
    assert float(found.importance[0, 0, 0]) == 1
    assert float(found.first_token_score) == 1
    assert int(found.strongest_key) == 0


def test_even_attention_has_entropy_one_and_harmonic_importance():
    length = 20
    output, found = attend(*(torch.zeros(1, 1, length, 2) for _ in range(3)), torch.ones(length, length).tril().bool())
    np.testing.assert_allclose(found.entropy, 1.0, atol=1e-6)
    harmonic = sum(1 / i for i in range(1, length + 1)) / length
    assert float(found.importance[0, 0, 0]) == pytest.approx(harmonic, abs=1e-6)


def test_no_strongest_key_in_a_sequence_shorter_than_min_queries():
    weights = torch.eye(5)[None, None]
    assert int(statistics_of(weights, min_queries=8).strongest_key) == -1
    assert int(statistics_of(weights, min_queries=5).strongest_key) == 0


def test_a_single_token_leaves_score_and_entropy_undefined():
    found = statistics_of(torch.ones(1, 1, 1, 1))
    assert float(found.importance) == 1
    assert math.isnan(float(found.first_token_score))
    assert math.isnan(float(found.entropy))


def test_sink_rate_is_strict_and_thresholded_before_the_mean():
    alpha = torch.tensor([[0.3], [0.9], [0.1], [0.2]], dtype=torch.float64)
    rate = sink_rate(alpha, torch.tensor([0.3, 0.2, 0.05], dtype=torch.float64))
    np.testing.assert_allclose(rate, [[25.0, 50.0, 100.0]])


def test_a_query_without_keys_is_an_error_not_a_uniform_row():
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    with pytest.raises(ValueError, match="sees no key"):
        attend(*(torch.zeros(1, 1, 4, 2) for _ in range(3)), mask[None, None])


def test_a_soft_capped_call_is_the_reference_of_its_score_and_an_odd_mask_a_pair_bias():
    """Against softmax of the formula written out, and kd.weights of the same rule."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 3, 11, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    holes = torch.rand(2, 1, 11, 11, generator=generator) < 0.5
    holes |= torch.eye(11, dtype=torch.bool)
    bias = torch.randn(1, 3, 11, 11, generator=generator, dtype=torch.float64)
    output, found = attend(q, k, v, holes, 0.7, softcap=1.5, bias=bias, keep_weights=True)
    scores = 1.5 * torch.tanh(0.7 * (q @ k.mT) / 1.5) + bias
    expected = torch.softmax(scores.masked_fill(~holes, -torch.inf), -1)
    np.testing.assert_allclose(found.weights, expected, atol=CLOSE)
    np.testing.assert_allclose(output, expected @ v, atol=1e-12)  # float64 all along
    call = AttentionCall.of(holes, bias, 11, q.device)
    assert isinstance(call.neighbourhood, kd.Everyone)
    np.testing.assert_allclose(kd.weights(call.rule(SoftCapped(kd.DotProduct(0.7), 1.5)), q, k), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "causal"),
    [
        (kd.Everyone(), False),
        (kd.Causal(), True),
        (kd.Window(3), True),
        (kd.Window(1), True),
        (kd.Window(3) & kd.Causal(), True),
    ],
)
def test_a_mask_is_read_as_the_index_rule_that_drew_it(rule, causal):
    """Away from the ends of the sequence; the weights of the rule read are those of the mask."""
    visible = kd.weights(kd.Interaction(kd.Flat(), rule), torch.zeros(9, 1)) > 0
    call = AttentionCall.of(visible[None, None], None, 9, visible.device)
    assert (call.pair_bias, call.causal) == (None, causal)
    read = kd.weights(call.rule(kd.Flat()), torch.zeros(9, 1)) > 0
    assert torch.equal(read, visible)
    assert torch.equal(call.visible_keys.flatten(), visible.sum(-1))


@pytest.mark.parametrize("low_high", [(-1, 2), (-2, 2), (-8, 2), (-2, 8)])
def test_a_band_that_looks_ahead_becomes_a_pair_bias(low_high):
    low, high = low_high
    lag = torch.arange(9)[:, None] - torch.arange(9)
    visible = (lag >= low) & (lag <= high)
    call = AttentionCall.of(visible, None, 9, visible.device)
    assert not call.causal
    weights = kd.weights(call.rule(kd.Flat()), torch.zeros(9, 1))
    np.testing.assert_allclose(weights, visible / visible.sum(-1, keepdim=True), atol=1e-6)


def test_a_bias_beside_a_mask_of_numbers_adds_to_it():
    g = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 2, 7, 3, generator=g) for _ in range(3))
    numbers, bias = torch.randn(1, 1, 7, 7, generator=g), torch.randn(1, 2, 7, 7, generator=g)
    hidden = torch.ones(7, 7).triu(1).bool()
    mask = numbers.masked_fill(hidden, torch.finfo(torch.float32).min)
    _, found = attend(q, k, v, mask, bias=bias, keep_weights=True)
    scores = (q.double() @ k.double().mT / math.sqrt(3) + numbers + bias).masked_fill(hidden, -torch.inf)
    np.testing.assert_allclose(found.weights, scores.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("kind", ["soft cap", "bias", "sink", "half", "holes", "values of another width"])
def test_one_pass_and_blocks_of_the_definition_agree(kind, monkeypatch):
    """Whatever a call has beside a mask, against the blocks of `kd.weights` on the same arrays."""
    g = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(2, heads, 150, 8, generator=g) for heads in (4, 2, 2))
    mask, options = torch.ones(150, 150, dtype=torch.bool).tril()[None, None], {}
    if kind == "soft cap":
        options = {"softcap": 1.5}
    elif kind == "bias":
        options = {"bias": torch.randn(1, 4, 150, 150, generator=g)}
    elif kind == "sink":
        options = {"sink": torch.tensor([-50.0, 0.0, 3.0, 200.0])}
    elif kind == "half":
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    elif kind == "holes":
        mask = mask & (torch.rand(2, 1, 150, 150, generator=g) < 0.7) | torch.eye(150, dtype=torch.bool)
    else:
        v = v[..., :3]
    output, found = attend(q, k, v, mask, **options, keep_weights=True)
    monkeypatch.setattr(fused, "serves", lambda call: "asked not to")
    blocks_output, blocks_found = attend(q, k, v, mask, **options, keep_weights=True)
    torch.testing.assert_close(output, blocks_output, atol=2e-2 if kind == "half" else 1e-5, rtol=0)
    for field in fields(found):
        if field.name != "top_keys":
            ours, theirs = getattr(found, field.name), getattr(blocks_found, field.name)
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True, msg=field.name)
    if kind == "sink":
        np.testing.assert_allclose(found.learned_sink[:, 3], 1.0)
        np.testing.assert_allclose(found.weights.sum((-1, -2)) / 150 + found.learned_sink, 1.0, atol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.entries = max(self.entries, x.untyped_storage().nbytes() // x.itemsize)
        return out


def test_memory_of_statistics_is_linear_in_tokens():
    """Four times the tokens make tensors four times as large; maps would be sixteen times."""
    most = []
    for length in (512, 2048):
        q = torch.randn(1, 2, length, 8)
        call = AttentionCall.of_window(None, length, q.device)
        with Largest() as seen:
            attend(q, q, q, None, read=lambda *_, call=call: call)
        most.append(seen.entries)
    assert most[1] <= 4 * most[0]
    assert most[1] < 2048**2 / 8


@pytest.mark.parametrize("before", [None, 3, 20])
def test_a_window_said_in_words_is_the_one_read_from_its_mask(before):
    lag = torch.arange(12)[:, None] - torch.arange(12)
    visible = (lag >= 0) & (lag <= (12 if before is None else before))
    said, read = (
        AttentionCall.of_window(before, 12, torch.device("cpu")),
        AttentionCall.of(visible, None, 12, torch.device("cpu")),
    )
    assert said.neighbourhood.reach == read.neighbourhood.reach
    assert said.causal == read.causal
    for name in ("visible_keys", "visible_queries", "sees_first"):
        assert torch.equal(getattr(said, name), getattr(read, name)), name


@pytest.mark.gpu
@pytest.mark.parametrize("before", [None, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_statistics_on_a_gpu_are_those_of_float64(before, dtype):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 700, 64, generator=g).to(dtype) for heads in (4, 2, 2))
    call = AttentionCall.of_window(before, 700, torch.device("cuda"))
    output, found = attend(q.cuda(), k.cuda(), v.cuda(), None, read=lambda *_: call)
    call = AttentionCall.of_window(before, 700, torch.device("cpu"))
    exact, expected = attend(q.double(), k.double(), v.double(), None, read=lambda *_: call)
    torch.testing.assert_close(output.cpu().double(), exact, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    for field in fields(found):
        if field.name not in ("top_keys", "weights"):
            ours, truth = getattr(found, field.name).cpu(), getattr(expected, field.name)
            torch.testing.assert_close(ours, truth, atol=2e-4, rtol=2e-4, equal_nan=True, msg=field.name)
