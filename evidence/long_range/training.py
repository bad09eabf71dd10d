"""Train a small decoder on a task and count its right answers lag by lag."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import functional

from evidence.long_range.presets import Setting
from evidence.long_range.tasks import IGNORED, Task
from evidence.plan import Arm
from krause_dynamics.models import KrauseLM, KrauseLMConfig, parameter_groups


def model_of(task: Task, arm: str, setting: Setting, seed: int) -> KrauseLM:
    """A decoder with fresh weights, half the window's keys where the arm has top-k.

    Weights start at 1/sqrt(d), not at 0.02: scores of narrow models would be flat for thousands of steps.
    """
    words = {key: value for key, value in Arm(arm).model.items() if key in ("score", "support", "gate")}
    config = KrauseLMConfig(
        vocab_size=task.vocabulary, max_position_embeddings=task.length, hidden_size=setting.width,
        num_hidden_layers=setting.layers, num_attention_heads=setting.heads, window=setting.window,
        attention_top_k=setting.window // 2, initializer_range=setting.width**-0.5, **words,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return KrauseLM(config)


def influence(model: KrauseLM, task: Task, seed: int = 0) -> Tensor:
    """Norm of the gradient of the last token's logits by the input at each lag, (n,): lags 0, 1, ..., n - 1."""
    model.eval()
    tokens = task.batch(4, torch.Generator().manual_seed(seed)).tokens.to(model.device)
    inputs = model.token_embedding(tokens).detach().requires_grad_(True)
    logits = model(inputs_embeds=inputs).logits[:, -1]
    probe = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).to(logits)
    (gradient,) = torch.autograd.grad((logits * probe).sum(), inputs)
    return gradient.norm(dim=(0, 2)).flip(0).cpu()


def train(
    task: Task, model: KrauseLM, setting: Setting, seed: int, told: Callable[[int, float], object] = lambda i, x: None
) -> None:
    """Train on fresh sequences, the loss at the answers alone."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=setting.learning_rate)
    model.train()
    for step in range(setting.steps):
        warm = min(1.0, (step + 1) / (0.05 * setting.steps))
        rate = setting.learning_rate * warm * 0.5 * (1 + cos(pi * step / setting.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = task.batch(setting.batch_size, generator)
        loss = _loss(model, batch.tokens.to(model.device), batch.answers.to(model.device), task)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == setting.steps - 1:
            told(step, loss.item())


def _loss(model: KrauseLM, tokens: Tensor, answers: Tensor, task: Task) -> Tensor:
    asked = int((answers[0] != IGNORED).sum())
    logits = model(tokens, logits_to_keep=asked).logits[..., : task.values]
    return functional.cross_entropy(logits.flatten(0, 1), answers[:, -asked:].flatten())


@torch.no_grad()
def counted(task: Task, model: KrauseLM, setting: Setting, seed: int) -> tuple[Tensor, Tensor]:
    """Right answers and all answers by lag, (n,) each."""
    generator = torch.Generator().manual_seed(seed)
    right, asked = torch.zeros(task.length, dtype=torch.long), torch.zeros(task.length, dtype=torch.long)
    model.eval()
    for _ in range(setting.tested // 256):
        batch = task.batch(256, generator)
        said = model(batch.tokens.to(model.device)).logits[..., : task.values].argmax(-1).cpu()
        there = batch.answers != IGNORED
        asked += torch.bincount(batch.lags[there], minlength=task.length)
        right += torch.bincount(batch.lags[there & (said == batch.answers)], minlength=task.length)
    return right, asked
