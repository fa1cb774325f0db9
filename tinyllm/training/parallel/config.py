"""How a run is spread over devices."""

import dataclasses

from tinyllm.errors import UserError

STAGES = (0, 1, 2, 3)


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """What does not change the result, up to the order of sums: how the ranks share memory and send gradients."""

    zero: int = 0
    """What is parted among the ranks instead of repeated on each: 0 nothing, 1 the optimizer's state, 2 gradients too,
    3 weights too."""
    reduce_bucket: int = 2**22
    """How many numbers of the gradient are sent at once, at most, but for a parameter that is larger."""
    gather_bucket: int = 2**22
    """How many weights are sent at once, at most."""
    overlap: bool = True
    """Whether gradients are sent while backward goes on."""
    reduce_scatter: bool = True
    """Whether each rank is sent only the sums that it needs (from stage 1 on); else all of them."""
    all_gather: bool = True
    """Whether weights are gathered from all ranks at once; else each rank sends its own in turn."""
    timeout: float = 600
    """Seconds after which a rank that does not move or answer is given up, and the run with it."""
    log_messages: bool = False
    """Whether messages.jsonl in the run's folder has every message of the first rank."""

    def __post_init__(self):
        if self.zero not in STAGES:
            raise UserError(f"zero must be one of the stages 0, 1, 2 and 3, not {self.zero!r}")
        for name in ("reduce_bucket", "gather_bucket"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.timeout > 0:
            raise UserError(f"timeout must be a time above 0 s, not {self.timeout}")

    def as_dict(self):
        """For config.json."""
        return dataclasses.asdict(self)
