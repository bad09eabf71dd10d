"""Who is with whom, layer by layer.

The first 64 tokens of a text in SmolLM2-135M: a row is a token, a colour a cluster of directions within 41 degrees that
is followed through the layers. Equal words stand together from the embedding on; from the middle of the blocks on
one large cluster takes in many of them.
"""

import sys

import krause_dynamics as kd
from evidence.trained_models import stored

with kd.plots.style():
    kd.plots.tracks(stored("further/smollm2_tracks")).figure.savefig(sys.argv[1])
