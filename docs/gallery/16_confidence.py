"""How much of a trained Krause model its theorem covers.

The small autoregressive model of the repository on twelve digits. The theorem on separated groups asks that a token be
of a group that hears nobody outside, and near the centre of what it hears; of a trained layer hardly any token is both.
The map on the right says why: heads hear keys several sigma away.
"""

import sys

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("further/digits_confidence")
with kd.plots.style():
    kd.plots.confidence_figure(data).savefig(sys.argv[1])
