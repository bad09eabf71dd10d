"""A trained encoder of sentences.

MiniLM of six blocks, 24 pieces of text of 64 tokens between `[CLS]` and `[SEP]`. Shuffled words align nearly as much:
alignment is of the words, not of their order. In the middle blocks most heads rest on `[CLS]`.
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("minilm")
given = data.sel(control="as given", drop=True)
with kd.plots.style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    kd.plots.synchronization(data, ax=left, tokens="without_first")
    left.set(ylabel="order parameter R", title="alignment, without [CLS]")
    kd.plots.sink_map(given, ax=right, eps=0.3)
    right.set_title("attention sinks at [CLS]")
    fig.savefig(sys.argv[1])
