"""How sure a mean is.

Attention to the first token in SmolLM2-135M, mean over 24 texts with its 95 % interval, of the heads that give it most,
a middle share and least. With random tokens in place of the text other heads lead, and the
course over the blocks is alike, with its pause at blocks 11 and 12.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("smollm2")
with kd.plots.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), sharey=True)
    for ax, control, title in ((left, "as given", "text"), (right, "random", "random tokens")):
        found = kd.checkpoints.interval(data.sel(control=control))
        kd.plots.interval(found, quantity="importance_first", ax=ax)
        ax.set_xlabel(f"block ({title})")
    fig.savefig(sys.argv[1])
