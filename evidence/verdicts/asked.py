"""What public critiques of the paper asked for, and where it is answered."""

from __future__ import annotations

from evidence.experiments import G, N, T
from evidence.plan import difference
from evidence.verdicts.claims import FULL_RULE, Claim

BELOW = "shown"
ASKED: tuple[Claim, ...] = (
    Claim(
        "Softmax with a learned key norm, which on a fixed support is as free as the Gaussian: Gaussian less that, on "
        "the same window", "", 0, "fashion", difference(f"{G}.window", f"{N}.window"),
    ),
    Claim("The same where all are heard", "", 0, "fashion-more", difference(f"{G}.full", f"{N}.full")),
    Claim(
        "Softmax with the window alone, which the paper does not show: window less full, learned temperature", "", 0,
        "cifar", difference(f"{T}.window", f"{T}.full"),
    ),
    Claim("The full rule less softmax with that window", "", 0, "cifar", difference(FULL_RULE, f"{T}.window")),
    Claim(
        "A window with tokens that all hear (Longformer): four registers less none", "", 0, "fashion-more",
        difference(f"{G}.window+first_tokens", f"{G}.window"),
    ),
    Claim(
        "Random keys at equal compute: less the window", "", 0, "cifar", difference(f"{T}.random", f"{T}.window"),
    ),
    Claim("Routed keys at equal compute", "", reason="no arm was planned", verdict="not run"),
    Claim("Top-k alone: less all keys", "", 0, "fashion-more", difference(f"{G}.top_k", f"{G}.full")),
    Claim(
        "Wall clock against fused attention, as a curve in N", "", verdict=BELOW,
        reason="`benchmarks/results/attention_growth_*.json`, figure `attention_growth`",
        command="python benchmarks/attention_growth.py",
    ),
    Claim(
        "How large neighbourhoods are", "", verdict=BELOW,
        reason="keys heard, and keys that share the weight: vision transformers below; over blocks in "
        "`figures/trained_vits_heads.png`", command="python -m evidence.vits WEIGHTS --data DATA",
    ),
    Claim(
        "Seeds and intervals instead of single numbers", "", verdict=BELOW,
        reason="2 to 5 seeds an arm, t-intervals with the pooled error, the arms of one seed without a verdict",
    ),
    Claim(
        "Clusters in a trained model", "", verdict=BELOW,
        reason="order, effective clusters and groups of trained models beside untrained ones and shuffled input: below",
        command="python -m evidence.vits WEIGHTS --data DATA",
    ),
    Claim(
        "A task over a distance on which the rule degrades", "", verdict=BELOW,
        reason="beyond L (W - 1) tokens a stack of windows guesses: long range below",
        command="python -m evidence.long_range --preset small --out OUT",
    ),
    Claim(
        "Sinks, branch by branch: Krause branch + LoRA less LoRA, in the softmax branch", "", 0, "smollm2",
        difference("krause+lora", "lora"), measure="sink_rate_softmax",
        reason="points of the share of heads that are sinks; the Krause branch's own below",
    ),
)  # fmt: skip
