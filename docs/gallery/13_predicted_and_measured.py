"""Theory beside a trained model.

SmolLM2-135M on twelve texts of 64 tokens. Above: how much each block draws tokens together, predicted from its
derivative at the mean of the tokens, and measured. Below: a dot for each text, where theory is right on the dotted
line. The predictions assume one beta and no feed-forward layers; where both sides part, the rest of the model is at
work.
"""

import sys

import krause_dynamics as kd
from evidence.trained_models import stored

data = stored("further/smollm2_forecast")
with kd.plots.style():
    kd.plots.forecast_figure(data).savefig(sys.argv[1])
