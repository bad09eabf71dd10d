"""Statistics that are launched after the block whose attention they are of, as on a GPU."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import attention_pass, finite
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.forms.attention import definition
from krause_dynamics.interaction import DotProduct
from tests import checkpoint_models as models


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The path of a GPU, with the definition in place of its kernels; the list of its steps."""
    steps = []

    def mean_and_log_partition(call):
        steps.append("attention")
        return definition.attend(call)

    def all_keys(call, log_partition):
        steps.append("sums")
        rule = AttentionCall.of_window(None, call.q.shape[2], call.q.device).rule(DotProduct(float(call.scale)))
        return attention_pass._by_blocks(rule, call.q, call.k, call.v, None, False)[1]

    stand_in = SimpleNamespace(mean_and_log_partition=mean_and_log_partition, all_keys=all_keys)
    monkeypatch.setattr(finite, "HOST", "another")
    monkeypatch.setattr(attention_pass, "_device_pass", lambda call: stand_in)
    monkeypatch.setattr(attention_pass.fused, "serves", lambda call: "asked not to")
    return steps


def given(length=20):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, length, 8) for heads in (4, 2, 2))
    return q, k, v, torch.ones(length, length, dtype=torch.bool).tril()


def test_statistics_wait_until_they_are_called_for(as_on_a_gpu, monkeypatch):
    output, statistics = attention_pass.attend_later(*given())
    assert as_on_a_gpu == ["attention"]
    found = statistics()
    assert as_on_a_gpu == ["attention", "sums"]
    monkeypatch.undo()
    expected_output, expected = attention_pass.attend(*given())
    torch.testing.assert_close(output, expected_output)
    for field in fields(found):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name != "weights":
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, equal_nan=True, msg=field.name)


@pytest.mark.parametrize("place", [0, 1])
def test_queries_and_keys_that_were_changed_meanwhile_are_refused(place, as_on_a_gpu):
    tensors = given()
    _, statistics = attention_pass.attend_later(*tensors)
    tensors[place].add_(1.0)
    with pytest.raises(kd.UnsupportedModel, match="in place after their attention"):
        statistics()


def test_sums_follow_the_block_and_are_told_before_its_state(as_on_a_gpu):
    model, told = models.llama(), as_on_a_gpu
    model.model.layers[0].mlp.register_forward_hook(lambda *_: told.append("mlp"))
    layers = SimpleNamespace(
        state=lambda layer, tokens: told.append(f"state {layer}"),
        attention=lambda block, found: told.append(f"attention {block}"),
    )
    run = Passes.of(
        model, [list(range(1, 17))], tokenizer=None, attention="statistics", batch_size=1, min_queries=8, device=None,
        trust_remote_code=False, progress=False,
    )  # fmt: skip
    run.stream(next(iter(run.inputs.batches(1)))[1], layers)
    assert told[:6] == ["state 0", "attention", "mlp", "sums", "attention 1", "state 1"]
