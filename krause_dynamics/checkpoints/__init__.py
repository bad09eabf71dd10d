"""Trained Transformers as particle systems: load, record a forward pass as a Trajectory, analyse it layer by layer."""

from krause_dynamics import _torch  # noqa: F401 (says how to install it)
from krause_dynamics.checkpoints.analyze import analyze
from krause_dynamics.checkpoints.compare import compare
from krause_dynamics.checkpoints.confidence import confidence
from krause_dynamics.checkpoints.encoder_decoder import encoder_decoder
from krause_dynamics.checkpoints.forecast import forecast
from krause_dynamics.checkpoints.inputs import prepare
from krause_dynamics.checkpoints.interval import interval
from krause_dynamics.checkpoints.load import Checkpoint, load
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.patches import patches
from krause_dynamics.checkpoints.predictions import predictions
from krause_dynamics.checkpoints.record import record
from krause_dynamics.checkpoints.tokens import Tokens
from krause_dynamics.checkpoints.tracks import tracks
from krause_dynamics.checkpoints.twin import twin

__all__ = [
    "Checkpoint",
    "Measure",
    "Tokens",
    "analyze",
    "compare",
    "confidence",
    "encoder_decoder",
    "forecast",
    "interval",
    "load",
    "patches",
    "predictions",
    "prepare",
    "record",
    "tracks",
    "twin",
]
