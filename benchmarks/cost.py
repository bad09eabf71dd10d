"""What KViT costs beside the same model with softmax, and beside what the paper prints: `python benchmarks/cost.py`.

The paper's counts leave out whole layers (a hook that replaces their outputs); "as printed" is what its script prints,
"executed there" the matrix products that its code runs: all pairs are computed, most of them masked afterwards.
"""

from __future__ import annotations

import torch
from _report import machine, table

from krause_dynamics.models import KrauseViT, cost, published

# Giga multiply-adds as printed and as executed by the published code; None where it prints nothing.
SETTINGS: dict[str, tuple[float | None, float | None]] = {
    "kvit-small-cifar10": (None, None),
    "kvit-base-cifar10": (3.77, 5.56),
    "kvit-small-imagenet": (3.22, 4.42),
    "kvit-base-imagenet": (3.00, 4.39),
}
ARMS = {"softmax": {"score": "dot", "support": "full"}, "Krause": {}}
BATCH = 4


def main() -> None:
    """Print the table."""
    rows: list[tuple[object, ...]] = []
    for name, (printed, there) in SETTINGS.items():
        costs = {}
        for arm, keys in ARMS.items():
            torch.manual_seed(0)
            model = KrauseViT(published(name, **keys))
            size = model.config.pixels
            counted = cost(model, torch.zeros(1, 3, *size), repeats=1)
            costs[arm] = counted, cost(model, torch.zeros(BATCH, 3, *size), repeats=7)
        (plain, plain_timed), (ours, timed) = costs["softmax"], costs["Krause"]
        rows.append(
            (
                name, printed or "-", there or "-", f"{plain.executed / 1e9:.3f}", f"{ours.executed / 1e9:.3f}",
                f"{ours.useful / 1e9:.3f}", f"{100 * (1 - ours.executed / plain.executed):.1f} %",
                f"{timed.forward_seconds / plain_timed.forward_seconds:.2f}",
                f"{timed.step_seconds / plain_timed.step_seconds:.2f}",
                f"{timed.activation_bytes / plain_timed.activation_bytes:.2f}",
            )
        )  # fmt: skip
    print(f"Giga multiply-adds a picture; times and memory of a batch of {BATCH}, Krause over softmax.\n")
    print(
        table(
            ("setting", "as printed", "executed there", "softmax", "Krause", "useful", "saved", "forward", "step",
             "activations"),
            rows,
        )
    )  # fmt: skip
    print(f"\n{machine('torch', 'numba')}")


if __name__ == "__main__":
    main()
