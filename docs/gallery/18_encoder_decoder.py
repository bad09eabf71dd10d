"""Both stacks of an encoder-decoder, and what one hears of the other.

A T5 of random weights, six pairs of random tokens: a picture of what training has to change. Without training every
quarter of the decoder's tokens looks at the middle of the sources; one that reads along would climb.
"""

import sys

import numpy as np
import torch
from transformers import T5Config, T5Model

import krause_dynamics as kd

torch.manual_seed(0)
sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 6, "num_heads": 4, "vocab_size": 100}
model = T5Model(T5Config(**sizes, decoder_start_token_id=0)).eval()
rng = np.random.default_rng(0)
found = kd.checkpoints.encoder_decoder(model, rng.integers(2, 100, (6, 24)), rng.integers(2, 100, (6, 16)))
with kd.plots.style():
    kd.plots.encoder_decoder_figure(found).savefig(sys.argv[1])
