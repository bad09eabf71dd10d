"""Arms, tasks and sizes by name, read without torch: neither help nor a worker without time left has to load it."""

from __future__ import annotations

from dataclasses import dataclass

ARMS = (
    "dot.full", "dot+temperature.window", "gaussian.window", "gaussian.window+top_k", "gaussian.window+first_tokens",
    "gaussian.window+top_k.gated",
)  # fmt: skip
# Kind of a task, and the lag of a copied string less the horizon; other lags are drawn.
TASKS = {
    "needle": ("needle", None),
    "recall": ("recall", None),
    "copy-within": ("copy", -3),
    "copy-beyond": ("copy", 1),
}


@dataclass(frozen=True)
class Setting:
    """Size and schedule of a model.

    Attributes:
        layers: L.
        window: W keys, the query's own counted.
        width: d.
        heads: H.
        steps: Of AdamW, with a warm-up of a twentieth and a cosine.
        batch_size: Sequences a step.
        learning_rate: The largest.
        tested: Sequences on which answers are counted.
    """

    layers: int = 3
    window: int = 16
    width: int = 64
    heads: int = 2
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    tested: int = 8192

    @property
    def horizon(self) -> int:
        """L (W - 1): the largest lag that a stack of windows can see."""
        return self.layers * (self.window - 1)


PRESETS = {  # length of a sequence, and the model: a third of the lags is beyond the horizon, or more
    "tiny": (24, Setting(layers=2, window=4, width=16, steps=8, batch_size=16, tested=256)),
    "small": (48, Setting(layers=3, window=8, width=32, steps=600, learning_rate=4e-3, tested=4096)),
    "large": (128, Setting(layers=4, window=12, width=64, steps=1500, learning_rate=3e-3, tested=16384)),
}
