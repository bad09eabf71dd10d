"""Augmentation, schedule and step: laws of their random numbers, and that a step is AdamW's."""

from __future__ import annotations

import math
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from krause_dynamics.models import KrauseViT, KrauseViTConfig, parameter_groups  # noqa: E402
from krause_dynamics.training import evaluation  # noqa: E402
from krause_dynamics.training.augmentation import Mixer, beta_table, shifted  # noqa: E402
from krause_dynamics.training.formats import Pictures  # noqa: E402
from krause_dynamics.training.loop import Batches, optimizer_of  # noqa: E402
from krause_dynamics.training.step import TrainingStep, learning_rates  # noqa: E402
from krause_dynamics.training.tables import Training  # noqa: E402
from krause_dynamics.training.tasks import Classes, Levels  # noqa: E402
from tests import training_data as made  # noqa: E402

CPU = torch.device("cpu")


def test_every_shift_and_both_sides_occur_equally_often_and_nothing_else():
    torch.manual_seed(0)
    picture = torch.arange(1, 13, dtype=torch.uint8).reshape(1, 1, 3, 4)
    padded = functional.pad(picture, (1,) * 4)
    found = shifted(padded, torch.zeros(3600, dtype=torch.long), 1, True)
    expected = {}
    for down in range(3):
        for across in range(3):
            cut = padded[0, 0, down : down + 3, across : across + 4]
            expected[cut.numpy().tobytes()] = expected[cut.flip(1).numpy().tobytes()] = 0
    for x in found[:, 0]:
        expected[x.contiguous().numpy().tobytes()] += 1
    assert len(expected) == 18
    # 18 equally likely pictures, 3600 draws: chi squared of 17 degrees of freedom.
    assert stats.chisquare(list(expected.values())).pvalue > 1e-3


def test_without_shift_and_mirror_pictures_are_as_they_were():
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(shifted(x, torch.tensor([3, 0, 3]), 0, False), x[[3, 0, 3]])


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_the_table_is_the_distribution_function_of_beta(alpha):
    """Compared below 1/2, where float32 resolves the end; the law is the same seen from the other side."""
    table = beta_table(alpha).double().numpy()
    np.testing.assert_allclose(stats.beta(alpha, alpha).cdf(table[:513]), np.linspace(0, 0.5, 513), atol=1e-6)
    np.testing.assert_allclose(table + table[::-1], 1.0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_shares_of_mixup_follow_beta_and_pictures_agree_with_their_labels(alpha):
    torch.manual_seed(1)
    x = torch.arange(4000.0).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    labels = torch.eye(4000)
    mixed, shares = Mixer(alpha, 0.0, CPU)(x, labels)
    share = shares.diagonal()
    assert stats.kstest(share.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    torch.testing.assert_close(shares.sum(1), torch.ones(4000))
    torch.testing.assert_close(mixed[:, 0, 0, 0], share * x[:, 0, 0, 0] + (1 - share) * x.roll(1, 0)[:, 0, 0, 0])


def test_a_box_of_cutmix_is_one_box_whose_area_is_the_share_of_the_label():
    torch.manual_seed(2)
    x = torch.ones(500, 1, 8, 8)
    x[::2] = 0.0
    labels = functional.one_hot(torch.arange(500) % 2, 2).float().flip(1)
    mixed, shares = Mixer(0.0, 1.0, CPU)(x, labels)
    other = mixed != x
    torch.testing.assert_close(shares[:, 0], mixed.mean((1, 2, 3)))
    for picture in other[:, 0]:
        rows, columns = picture.any(1), picture.any(0)
        assert torch.equal(picture, rows[:, None] & columns)
        assert rows.int().diff().abs().sum() <= 2
        assert columns.int().diff().abs().sum() <= 2
    # Clipped at the border, a box covers a quarter on average or a little more; a whole one would cover a half.
    assert 0.2 < other.float().mean() < 0.45


def test_both_are_taken_by_half_of_the_pictures_each():
    torch.manual_seed(3)
    x = (torch.arange(2000) % 2).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    mixed, _ = Mixer(0.8, 1.0, CPU)(x, torch.eye(2000))
    boxes = ((mixed == 0) | (mixed == 1)).all(-1).all(-1).all(-1).float().mean()
    assert abs(boxes - 0.5) < 4 * math.sqrt(0.25 / 2000) + 0.02  # a share of mixup that rounds to 0 or 1 looks like one
    assert Mixer(0.0, 0.0, CPU)(x, x)[0] is x


def test_rates_rise_linearly_and_fall_as_a_cosine():
    rates = learning_rates(2.0, 100, 10)
    np.testing.assert_allclose(np.diff(rates[:10]), 2.0 / 11)
    assert rates[10] == max(rates) == 2.0
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[-1] < 1e-3
    assert len(learning_rates(1.0, 5, 9)) == 5
    assert learning_rates(1.0, 4, 0)[0] == 1.0


def test_an_epoch_sees_each_example_once_and_processes_share_it():
    def order(rank=0, world=1, begin=0, epoch=0):
        batches = Batches(50, 4, seed=1, begin=begin, rank=rank, world=world, device=CPU)
        batches.set_epoch(epoch)
        return torch.stack([batch["rows"] for batch in batches])

    whole = order()
    assert whole.shape == (12, 4)
    assert len(set(whole.flatten().tolist())) == 48
    assert torch.equal(torch.cat([order(0, 2), order(1, 2)], 1), whole.reshape(6, 8))
    assert torch.equal(order(begin=2, epoch=1), order(epoch=3))
    assert not torch.equal(order(epoch=1), whole)


def test_a_step_is_the_step_of_adamw_by_hand():
    """Two steps without augmentation against a plain loop in the same float32: bit for bit but for the fused sum."""
    x, y = made.pictures(8)
    parts = dict.fromkeys(("train", "validation", "test"), Pictures(x, y.astype(np.int64)))
    task = Classes(parts, 3, Training(label_smoothing=0.1), CPU)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(KrauseViT(KrauseViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, **task.follows()
        )).train())  # fmt: skip
    rates = [0.01, 0.02]
    optimizer = optimizer_of(parameter_groups(models[0], 0.1), 1.0, CPU)
    ours = TrainingStep(
        models[0], task, optimizer, rates, done=0, batch_size=8, clip=0.5, bfloat16=False, capture=False
    )
    plain = torch.optim.AdamW(parameter_groups(models[1], 0.1))
    losses = []
    for rate in rates:
        ours(torch.arange(8))
        for group in plain.param_groups:
            group["lr"] = rate
        inputs = torch.from_numpy(x).float()
        inputs = (inputs - inputs.mean()) / inputs.std(correction=0)
        shares = 0.9 * functional.one_hot(torch.from_numpy(y).long(), 3).float() + 0.1 / 3
        loss = models[1](pixel_values=inputs, labels=shares).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models[1].parameters(), 0.5)
        plain.step()
        plain.zero_grad()
        losses.append(loss.item())
    np.testing.assert_allclose(ours.losses[:2], losses, rtol=1e-5)
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6, msg=name)


def test_nothing_holds_where_gradients_are_added_while_a_step_is_captured(monkeypatch):
    """A node that lives on from before stays on the stream of that time, of which torch warns, and orders the two."""
    weight = torch.nn.Linear(2, 1)
    step = TrainingStep(
        weight, None, optimizer_of(parameter_groups(weight), 1.0, CPU), [0.1], done=0, batch_size=1, clip=1.0,
        bfloat16=False, capture=True,
    )  # fmt: skip

    def adder(x):
        return x.view_as(x).grad_fn.next_functions[0][0]

    found = []

    def once():
        for x in step.weights:
            adder(x).metadata["seen"] = True  # kept as long as the node is
            found.append("seen" in adder(x).metadata)

    monkeypatch.setattr(step, "_once", once)
    monkeypatch.setattr("krause_dynamics.training.step.capture_stream", mock.MagicMock())
    for name in ("current_stream", "get_rng_state", "set_rng_state", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *args, **rest: nullcontext())
    step(torch.zeros(1, dtype=torch.long))
    assert found == [False] * (2 * 4)  # two weights, in three steps to warm up and the captured one


def test_a_step_that_cannot_be_captured_says_how_to_do_without(monkeypatch):
    def refused(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(TrainingStep, "_captured", refused)
    weight = torch.nn.Linear(1, 1)
    step = TrainingStep(
        weight, None, optimizer_of(parameter_groups(weight), 1.0, CPU), [0.1], done=0, batch_size=1, clip=1.0,
        bfloat16=False, capture=True,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"when stream is capturing\); training.capture = false makes it without"):
        step(torch.zeros(1, dtype=torch.long))


def test_a_process_without_examples_adds_nothing(monkeypatch):
    """Five test pictures among eight processes: sums of all are those of one process."""
    x, y = made.pictures(5)
    parts = dict.fromkeys(("train", "validation", "test"), Pictures(x, y.astype(np.int64)))
    task = Classes(parts, 3, Training(), CPU)
    torch.manual_seed(0)
    model = KrauseViT(KrauseViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, **task.follows()))
    given, found = {"batch_size": 4, "limit": None, "bfloat16": False}, []
    monkeypatch.setattr(task, "numbers", lambda sums: sums)
    monkeypatch.setattr("torch.distributed.all_reduce", found.append)
    whole = evaluation.measured(model, task, "test", rank=0, world=1, **given)
    for rank in range(8):
        evaluation.measured(model, task, "test", rank=rank, world=8, **given)
    torch.testing.assert_close(torch.stack(found).sum(0), whole)


def test_bits_of_a_uniform_model_are_eight_a_value():
    x, y = made.pictures(6)
    task = Levels(dict.fromkeys(("train", "validation", "test"), Pictures(x, y)), CPU)
    model = lambda input_ids, labels: type("Output", (), {"loss": torch.tensor(math.log(256.0))})()  # noqa: E731
    found = task.numbers(task.sums(model, "test", torch.arange(6)))
    assert found == pytest.approx({"loss": math.log(256), "bits_per_dimension": 8.0})
    assert torch.equal(task.inputs(torch.tensor([1]))["input_ids"][0], torch.from_numpy(x[1, 0]).flatten().long())
