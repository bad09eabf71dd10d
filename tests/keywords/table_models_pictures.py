"""Pictures drawn from a model: each keyword against the same call without it, or against the values themselves."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

GENERATE, COMPLETE = "kd.models.generate_pictures", "kd.models.complete_pictures"
GIVEN = np.random.default_rng(0).integers(0, 5, (2, 4, 3))


@cache
def tiny(size=3):
    import torch

    from krause_dynamics.models import KARM, KARMConfig

    torch.manual_seed(size)
    config = KARMConfig(
        image_size=[4, size], hidden_size=8, num_hidden_layers=1, num_attention_heads=1, levels=5, window=4,
        attention_top_k=3,
    )  # fmt: skip
    model = KARM(config).eval()
    with torch.no_grad():
        model.head.weight.mul_(30.0)
    return model


def generate(count=3, model=3, **options):
    return kd.models.generate_pictures(tiny(model), count, **options)


def complete(pictures=GIVEN, rows=None, model=3, **options):
    return kd.models.complete_pictures(tiny(model), pictures, rows, **options)


@row(GENERATE, "model", 3, 2, "pictures of the size of its configuration")
def model(first, second):
    for width in (first, second):
        assert generate(model=width).shape == (3, 4, width, 1)


@row(GENERATE, "count", 2, 5, "that many, of which the first do not depend on it")
def count(first, second):
    np.testing.assert_array_equal(generate(second)[:first], generate(first))


@row(COMPLETE, "model", 3, 2, "pictures of another size than its own are refused")
def complete_model(first, second):
    assert complete(model=first).shape == (2, 4, 3, 1)
    with pytest.raises(ValueError, match="pictures must have shape"):
        complete(model=second)


@row(COMPLETE, "pictures", GIVEN, GIVEN[::-1], "upper halves stay as they were")
def pictures(first, second):
    for given in (first, second):
        np.testing.assert_array_equal(complete(given)[:, :2, :, 0], given[:, :2])


@row(COMPLETE, "rows", 1, 3, "that many rows stay")
def rows(first, second):
    for kept in (first, second):
        drawn = complete(rows=kept)[..., 0]
        np.testing.assert_array_equal(drawn[:, :kept], GIVEN[:, :kept])
        assert (drawn[:, kept:] != GIVEN[:, kept:]).any()


def both(*rest):
    """The same row for either function."""

    def register(check):
        for path, call in ((GENERATE, generate), (COMPLETE, complete)):
            row(path, *rest)(lambda first, second, call=call: check(call, first, second))
        return check

    return register


@both("seed", 0, 1, "the same again from one seed, other pictures from another")
def seed(call, first, second):
    np.testing.assert_array_equal(call(seed=first), call(seed=first))
    assert (call(seed=first) != call(seed=second)).any()


@both("temperature", 1e-9, 1e9, "the most likely value each time where it is low, every level alike where it is high")
def temperature(call, first, second):
    cold = [call(temperature=first, seed=s)[:, -1] for s in (0, 1)]
    if call is complete:
        np.testing.assert_array_equal(*cold)
    hot = call(temperature=second, seed=3)
    uniform = np.stack([np.random.default_rng(np.random.SeedSequence([3, i])).random(12) for i in range(len(hot))])
    np.testing.assert_array_equal(hot.reshape(len(hot), -1)[:, 6:], (uniform * 5).astype(int)[:, 6:])


@both("batch_size", None, 1, "pictures do not depend on it")
def batch_size(call, first, second):
    np.testing.assert_array_equal(call(batch_size=first), call(batch_size=second))


@both("captured", None, True, "only on a CUDA device; by default wherever that can be")
def captured(call, first, second):
    np.testing.assert_array_equal(call(captured=first), call(captured=False))
    with pytest.raises(ValueError, match="captured=True needs a CUDA device"):
        call(captured=second)


@both("progress", False, "heard", "told of the values drawn, up to all of them")
def progress(call, first, second):
    heard = []
    drawn = call(progress=lambda done, total: heard.append((done, total)))
    np.testing.assert_array_equal(drawn, call(progress=first))
    assert heard[-1][0] == heard[-1][1] == {generate: 36, complete: 12}[call]
