"""Opinion dynamics under bounded confidence (Hegselmann-Krause, Deffuant) in discrete and continuous time."""

from krause_dynamics.opinions.batch import Batch, hegselmann_krause_batch
from krause_dynamics.opinions.disturbances import Noise, RandomRelocation, StepNoise, TruthSeeking
from krause_dynamics.opinions.flow import hegselmann_krause_flow
from krause_dynamics.opinions.result import FinalClusters, final_clusters
from krause_dynamics.opinions.rounding import RoundingWarning
from krause_dynamics.opinions.run import hegselmann_krause
from krause_dynamics.opinions.schedules import Deffuant, Schedule, Sequential, Synchronous

__all__ = [
    "Batch",
    "Deffuant",
    "FinalClusters",
    "Noise",
    "RandomRelocation",
    "RoundingWarning",
    "Schedule",
    "Sequential",
    "StepNoise",
    "Synchronous",
    "TruthSeeking",
    "final_clusters",
    "hegselmann_krause",
    "hegselmann_krause_batch",
    "hegselmann_krause_flow",
]
