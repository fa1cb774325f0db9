"""What a training run will need before it is begun: memory, arithmetic, messages, time, money."""

from tinyllm.training.planning.activations import Workload, kept_by_block, kept_until_backward, peak_of_step
from tinyllm.training.planning.hardware import hardware
from tinyllm.training.planning.page import page
from tinyllm.training.planning.plan import make_plan
from tinyllm.training.planning.shapes import parameter_shapes

__all__ = [
    "Workload", "hardware", "kept_by_block", "kept_until_backward", "make_plan", "page", "parameter_shapes",
    "peak_of_step",
]  # fmt: skip
