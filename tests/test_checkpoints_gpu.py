"""Analyses on a GPU: block by block, divided by accelerate, and the numbers of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints.finite import NotFinite
from krause_dynamics.checkpoints.stream import Passes
from tests import checkpoint_models as models
from tests.test_checkpoints_by_block import IDS, least, meta, saved

__all__ = ["least"]
pytestmark = pytest.mark.gpu
# Sums that float32 adds in another order, atomics among them; whole numbers (strongest keys, clusters) may turn on one.
ROUNDING = {"rtol": 2e-3, "atol": 2e-4}


def alike(one, other):
    """Within rounding, wherever an answer is no whole number."""
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        ours, theirs = one[name].values, other[name].values
        if "clusters" not in name and "plateau" not in name and ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, **ROUNDING, err_msg=name)


@pytest.mark.parametrize("family", [models.llama, models.mistral, models.bert])
def test_block_by_block_on_a_gpu_is_the_whole_model_there(tmp_path, least, family):
    folder = saved(family(), tmp_path)
    whole = kd.analyze(folder, IDS, device="cuda")
    found = kd.analyze(folder, IDS, device="cuda", memory=least(folder, device="cuda"))
    assert meta(found)["block_by_block"]
    alike(found, whole)
    alike(found, kd.analyze(folder, IDS))


def test_a_killed_analysis_goes_on_there(tmp_path):
    model, file = models.llama().cuda(), tmp_path / "half.npz"
    whole = kd.analyze(model, IDS, batch_size=1)
    stopped = []

    def press(done, total):
        if done == 2 and not stopped:
            stopped.append(done)
            raise SystemError("killed")

    with pytest.raises(SystemError):
        kd.analyze(model, IDS, batch_size=1, checkpoint=file, progress=lambda done, total: press(done - 4, total))
    alike(kd.analyze(model, IDS, batch_size=1, checkpoint=file), whole)


def test_divided_over_the_gpus_that_are_there(tmp_path):
    folder = saved(models.llama(), tmp_path)
    alike(kd.analyze(folder, IDS, device="auto"), kd.analyze(folder, IDS, device="cuda"))


@pytest.mark.parametrize("attention", ["sink", "statistics", "full"])
def test_tiers_on_a_gpu_are_those_of_the_cpu(attention):
    model, ids = models.llama(), [list(range(1, 49))]
    expected = kd.analyze(model, ids, attention="full")
    found = kd.analyze(model.cuda(), ids, attention=attention)
    for name in ("importance_first", "first_token_score", "self_weight", "head_diversity", "entropy", "mean_distance"):
        ours, truth = found[name].values, expected[name].values
        seen = ~np.isnan(ours)  # the sink tier leaves out what needs all weights
        assert seen.all() or (attention == "sink" and name in ("entropy", "mean_distance")), name
        if name != "head_diversity" or attention == "full":  # else of the sampled rows
            np.testing.assert_allclose(ours[seen], truth[seen], **ROUNDING, err_msg=name)


@pytest.mark.parametrize("rule", [kd.softmax(1.0), kd.softmax(0.5, kd.Causal()), kd.krause(1.0, kd.Window(9))])
def test_row_statistics_of_a_rule_on_a_gpu(rule):
    x = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(0))
    found, expected = kd.statistics(rule, x.cuda()), kd.statistics(rule, x.double())
    for name, truth in expected._asdict().items():
        ours = getattr(found, name)
        if truth is not None:
            torch.testing.assert_close(ours.cpu().double(), truth.double(), rtol=1e-4, atol=1e-4, msg=name)


class Unwaited:
    """Takes layers; between the embedding and the last of them a wait of the host for the GPU is an error, or not."""

    def __init__(self, last, mode):
        self.last = last
        self.mode = mode

    def state(self, layer, tokens):
        torch.cuda.set_sync_debug_mode("default" if layer == self.last else self.mode)

    def attention(self, block, found):
        pass


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("attention", [None, "sink", "statistics"])
def test_the_host_does_not_wait_between_layers(attention, dtype):
    model = models.llama(hidden_size=128, num_attention_heads=2, num_key_value_heads=1).to("cuda", dtype)
    run = Passes.of(
        model, [list(range(48))], tokenizer=None, attention=attention, batch_size=1, min_queries=8, device=None,
        trust_remote_code=False, progress=False,
    )  # fmt: skip
    batch = next(iter(run.inputs.batches(1)))[1]
    last = len(run.blocks)
    run.stream(batch, Unwaited(last, "default"))  # kernels are compiled and loaded
    try:
        run.stream(batch, Unwaited(last, "error"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_state_that_is_not_finite_is_told_with_its_layer():
    model = models.llama().cuda()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="block 2 gives NaN"):
        kd.checkpoints.record(model, IDS)
    assert kd.analyze(model, IDS).sizes["layer"] == 2


def test_recorded_states_are_those_of_the_model_there():
    """In batches of several lengths, each in its place."""
    model = models.llama().cuda()
    run = kd.checkpoints.record(model, IDS, batch_size=1)
    for i, ids in enumerate(IDS):
        with torch.no_grad():
            out = model(torch.tensor([ids], device="cuda"), output_hidden_states=True)
        for layer, state in enumerate(out.hidden_states[:-1]):  # the last one is after the final norm
            np.testing.assert_allclose(run.positions[layer, i, : len(ids)], state[0].cpu(), rtol=1e-5, atol=1e-5)
        assert not run.positions[:, i, len(ids) :].any()


def test_states_that_arrive_while_the_next_block_runs_are_those_of_plain_copies(monkeypatch):
    """Bit for bit, of batches of unlike lengths and of states large enough that a copy takes longer than a block."""
    from krause_dynamics.checkpoints.arriving import Arriving

    model = models.llama(max_position_embeddings=4096, hidden_size=256, num_hidden_layers=6).cuda()
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 50, length).tolist() for length in (4000, 64, 64, 4000, 900)]
    found = kd.checkpoints.record(model, ids, attention=None, batch_size=2)
    monkeypatch.setattr(Arriving, "send", lambda self, layer, state: self.put(layer, state.cpu()))
    plain = kd.checkpoints.record(model, ids, attention=None, batch_size=2)
    np.testing.assert_array_equal(found.positions, plain.positions)
    np.testing.assert_array_equal(found.extras["final_norm"], plain.extras["final_norm"])
