"""Milliseconds a value of an autoregressive model of pictures on one CPU thread, beside the floor of its products.

    python benchmarks/generation.py

KARM on MNIST (12 layers, width 256, window 128, k 96), batch 1, and the same model with softmax attention over all
earlier values (ARM) in the middle of a picture. The floor is the model's matrix-vector products alone, through memory:
the weights of all layers are distinct, as in the model. Generation is checked against full recomputation first.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from _report import table  # noqa: E402

from krause_dynamics.models import KARM, KARMConfig, complete_pictures, generate_pictures  # noqa: E402

torch.set_num_threads(1)


def built(**options):
    torch.manual_seed(0)
    return KARM(KARMConfig(**options)).eval()


def check():
    """The cached step draws what a whole pass draws."""
    model = built(image_size=6, num_hidden_layers=2, hidden_size=32, num_attention_heads=2, window=8, attention_top_k=6)
    drawn = generate_pictures(model, 2, seed=0)
    with torch.no_grad():
        values = torch.as_tensor(drawn.reshape(2, -1).astype(np.int64))
        whole = model(values).logits
        caches = model.new_cache()
        steps = [model(values[:, i : i + 1], past_key_values=caches).logits for i in range(values.shape[1])]
    error = float((torch.cat(steps, 1) - whole).abs().max())
    assert error < 1e-4, error
    print(f"largest difference of cached and whole logits: {error:.1e}\n")


def values(model, rows):
    """Processor milliseconds of the completion of the last ``rows`` rows of a picture."""
    height, width, _ = model.config.picture
    begin = time.process_time()
    complete_pictures(model, np.zeros((1, height, width), np.int64), height - rows)
    return 1e3 * (time.process_time() - begin)


@torch.no_grad()
def products(model, repeats=30):
    """Processor milliseconds of the products of one value: every weight matrix once, with a vector."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    vectors = [torch.randn(1, m.in_features) for m in layers]
    begin = time.process_time()
    for _ in range(repeats):
        for m, x in zip(layers, vectors, strict=True):
            torch.nn.functional.linear(x, m.weight, m.bias)
    return 1e3 * (time.process_time() - begin) / repeats


def measured(model, rows=10, rounds=5):
    """Milliseconds a value, of its products, and their ratio: medians of rounds in which they alternate.

    The given part of a picture is subtracted; each round has the products before and after, since others may load the
    machine.
    """
    width, found = model.config.picture[1], []
    for x in (values, products):
        x(model, 1)
    for _ in range(rounds):
        before = products(model)
        value = (values(model, rows) - values(model, 1)) / ((rows - 1) * width)
        alone = (before + products(model)) / 2
        found.append((value, alone, value / alone))
    return [statistics.median(column) for column in zip(*found, strict=True)]


if __name__ == "__main__":
    check()
    rows = []
    for name, options in (
        ("KARM, window 128, k 96", {}),
        ("ARM, softmax over all", {"score": "dot", "support": "full"}),
    ):
        rows.append((name, *(f"{x:.2f}" for x in measured(built(**options)))))
    print(table(("model, batch 1", "ms a value", "products alone, ms", "ratio"), rows))
