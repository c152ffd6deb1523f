"""Training objectives, one file per method; the file name is the name on the command line."""

from decone.objectives.base import Loss, Objective
from decone.objectives.compose import Compose
from decone.objectives.mle import MLE
from decone.objectives.registry import find, get, names
from decone.objectives.threshold import Threshold

__all__ = ["MLE", "Compose", "Loss", "Objective", "Threshold", "find", "get", "names"]
