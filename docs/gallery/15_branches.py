"""A window is no absence of sinks.

SmolLM2-135M with a Krause branch as it is before it has learned anything, on four texts of 64 tokens. Attention to the
first token is divided by that of even attention within the same reach: the branch hears 32 tokens back, so that its raw
scores say nothing beside those of softmax. The gate begins at four fifths for softmax.
"""

import sys

import krause_dynamics as kd
from evidence.trained_models import stored

with kd.plots.style():
    kd.plots.branches_figure(stored("further/smollm2_branches")).savefig(sys.argv[1])
