"""What each contrast is about, in words that need no paper."""

from __future__ import annotations

from collections.abc import Mapping

# What a contrast is about, as the subject of a sentence.
SUBJECTS: Mapping[str, str] = {
    "score: Gaussian - dot product": "A Gaussian score instead of a dot product, both with a learned scale",
    "window - full": "Hearing the near tokens alone, instead of all",
    "top-k inside the window - window": "Top-k inside the window",
    "score x window": "The score inside the window, beyond what it does without",
    "the paper's comparison: full rule - softmax": "The full rule of the paper, instead of softmax attention",
    "learned temperature - fixed": "Learning the temperature",
    "random keys - window, equal degree": "Random tokens instead of the near ones, as many",
    "CLS row exempt - full rule": "Letting the class token hear all patches, under the full rule",
    "CLS row exempt - window": "Top-k for patches alone, beside the window without it",
    "learned key norms - none, window": "A learned key norm inside the window",
    "gated - softmax": "A gated Krause branch beside softmax, instead of softmax alone",
    "Gaussian window + first tokens - window": "A Gaussian window with four first tokens, instead of a dot-product one",
    "top-k without a window - full": "Top-k among all tokens, instead of all of them",
    "gated Krause branch + LoRA - LoRA": "A gated Krause branch beside softmax, both with LoRA, instead of LoRA alone",
    "Gaussian - learned key norms, window": "The Gaussian instead of a learned key norm, inside the window",
    "window + first tokens - window": "Four learned registers, which all hear, beside the window",
    "learned temperature - fixed, window": "Learning the temperature, inside the window",
    "learned key norms - none, full": "A learned key norm, where all are heard",
    "Gaussian - learned key norms, full": "The Gaussian instead of a learned key norm, where all are heard",
    "random keys - window, Gaussian": "Random tokens instead of the near ones, under the Gaussian",
    "radius 2 - 1": "Near tokens up to two steps away, instead of one",
    "radius 3 - 1": "Near tokens up to three steps away, instead of one",
    "all - radius 1": "Hearing all tokens, instead of those one step away",
    "k 8 - 2, radius 3": "Eight of the tokens within three steps, instead of two",
    "k 4 - all, radius 1": "Four of the tokens one step away, instead of all six",
    "k 8 - all, radius 2": "Eight of the tokens within two steps, instead of all fourteen",
    "KARM - ARM": "The full rule of the paper, instead of softmax attention",
    "KARM without top-k - KARM": "Leaving top-k out of the full rule",
}


def subject(label: str) -> str:
    """What a contrast is about; a variant of one is named behind it (``window - full, post-norm``)."""
    plain, _, variant = label.rpartition(", ")
    return SUBJECTS[label] if label in SUBJECTS else f"{SUBJECTS[plain]} ({variant})"
