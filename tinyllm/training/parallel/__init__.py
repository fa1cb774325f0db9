"""Training on many devices: one process each, which exchange gradients and share the optimizer's work."""

from tinyllm.training.parallel.communicator import Communicator, LostRank, Single
from tinyllm.training.parallel.ranks import Ranks

__all__ = ["Communicator", "LostRank", "Ranks", "Single"]
