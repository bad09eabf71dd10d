"""Attention sinks of a trained decoder, under controls.

SmolLM2-135M at 64 tokens. The first token is a sink on text and on random tokens alike, and on one repeated token not
at all: with rotary positions all states are then the same. Grey: published rates of other decoders on text (Gu et al.,
arXiv 2410.10781). Below: where the sink is, the value of the first token is small, so that listening to it adds
little; in the first blocks and in the pause between, it is not. [Numbers](../figures/trained_models.md).
"""

import sys

import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence.trained_models import numbers, stored

data = stored("smollm2")
words = {"as given": "text", "with_bos": "text after <|im_start|>", "random": "random tokens", "repeated": "one token"}
with kd.plots.style():
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(7.2, 6.2), sharex=True, height_ratios=(3, 2))
    on_text = [row["as given"] for row in numbers.PUBLISHED.values()]
    top.axhspan(min(on_text), max(on_text), color="0.88", label="published, mean over blocks")
    for (control, label), dash in zip(words.items(), ("-", "-.", "--", ":"), strict=True):
        rate = data.sink_rate.sel(control=control, eps=0.3).mean("head")
        top.plot(rate.block, rate, dash, label=f"{label}: {float(rate.mean()):.1f} %")
    top.set(ylabel="(sequence, head) with a sink at\nthe first token, threshold 0.3 (%)", ylim=(-2, 102))
    top.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    norms = numbers.value_norms(data)
    bottom.plot(data.block, norms, "o", color="C0", markersize=4)
    bottom.axhline(1.0, color="0.4", linewidth=0.8)
    bottom.set(yscale="log", xlabel="block", ylabel="value of the first token\n/ median of the others")
    bottom.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    fig.savefig(sys.argv[1])
