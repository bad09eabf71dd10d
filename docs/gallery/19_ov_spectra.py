"""What a head does with what it hears.

Eigenvalues of the OV circuits of SmolLM2-135M, a dot each: where attention lies on a token, its state is pulled along
(right of the dotted line) or pushed away. Left: all 270 heads; of the first ten blocks 51 per cent of the eigenvalues
lie right of the line, of the last ten 66. Right: a block whose heads are divided and one that draws together as
a whole (93 per cent). Signs belong to heads: 57 nearly only attract, 21 nearly only repel.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("further/smollm2_forecast")
with kd.plots.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.2), sharex=True, sharey=True, width_ratios=(5, 4))
    kd.plots.ov_spectra(data, ax=left)
    for block, colour, mark in ((8, "C0", "o"), (28, "C1", "^")):
        look = {"color": colour, "marker": mark, "s": 12.0, "label": f"block {block}"}
        kd.plots.ov_spectra(data, ax=right, block=block, **look)
    right.set_ylabel("")
    right.legend()
    fig.savefig(sys.argv[1])
