"""Training works: losses fall, in a plain loop and in transformers' Trainer, which goes on after a stop bit for bit."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from krause_dynamics.models import (  # noqa: E402  # noqa: E402
    KARM,
    KARMConfig,
    KrauseLM,
    KrauseLMConfig,
    KrauseSwin,
    KrauseSwinConfig,
    KrauseViT,
    KrauseViTConfig,
)
from tests.model_sizes import PATCHES, PICTURES, WINDOWS, WORDS, pixels, words  # noqa: E402

MODELS = {
    "KViT": (KrauseViT, KrauseViTConfig, PATCHES),
    "KSwin": (KrauseSwin, KrauseSwinConfig, WINDOWS),
    "KARM": (KARM, KARMConfig, PICTURES),
    "ARM": (KARM, KARMConfig, {**PICTURES, "score": "dot", "support": "full"}),
    "LARM": (KARM, KARMConfig, {**PICTURES, "score": "linear", "support": "full"}),
    "LM": (KrauseLM, KrauseLMConfig, WORDS),
    "gated LM": (KrauseLM, KrauseLMConfig, {**WORDS, "gate": True}),
}


def built(name, **changes):
    kind, config, small = MODELS[name]
    torch.manual_seed(0)
    return kind(config(**{**small, **changes}))


def batch(model, number=4, seed=1):
    """Pictures with their classes, or rows of tokens which are their own labels."""
    if hasattr(model.config, "pixels"):
        x = pixels(model.config, batch=number, seed=seed, dtype=torch.float32)
        return {"pixel_values": x, "labels": torch.arange(number) % 5}
    x = words(30, batch=number, vocabulary=16, seed=seed)
    return {"input_ids": x, "labels": x}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_loss_falls_in_a_plain_loop(name):
    """60 steps on one small batch, which any model that learns can learn by heart: a third of the loss is left."""
    model = built(name)
    inputs = batch(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sigma = {
        name: p.detach().clone() for name, p in model.named_parameters() if "log_sigma" in name and p.requires_grad
    }
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    assert all(not torch.equal(model.get_parameter(name), before) for name, before in sigma.items()), "sigma is learned"


class Rows(torch.utils.data.Dataset):
    """Eight examples of a model, in memory."""

    def __init__(self, model):
        self.rows = batch(model, 8)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.rows.items()}


def trainer(name, folder):
    model = built(name, dropout=0.1, attention_dropout=0.1, drop_path=0.2)
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=8, save_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=1,
        report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=Rows(model))


@pytest.mark.parametrize("name", ["KViT", "gated LM"])
def test_the_trainer_goes_on_after_a_stop_bit_for_bit(name, tmp_path):
    """Four steps, then new objects (the Trainer seeds itself) and four more: the weights of eight in one go."""
    through = trainer(name, tmp_path / "through")
    through.train()
    losses = [entry["loss"] for entry in through.state.log_history if "loss" in entry]
    assert sum(losses[-2:]) < sum(losses[:2]), "two steps see all examples once"
    after = trainer(name, tmp_path / "after")
    after.train(resume_from_checkpoint=str(tmp_path / "through" / "checkpoint-4"))
    assert after.state.global_step == 8
    for expected, weight in zip(through.model.parameters(), after.model.parameters(), strict=True):
        assert torch.equal(weight, expected)
    assert (tmp_path / "after" / "checkpoint-8" / "model.safetensors").exists()
