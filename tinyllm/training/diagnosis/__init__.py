"""What a run's measurements say: is this loss normal, what is wrong if not, what to try."""

from tinyllm.training.diagnosis.verdict import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
