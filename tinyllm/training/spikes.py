"""Loss spikes: a loss or gradient norm far above those of the steps before it, found before the batch is followed."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

NEIGHBOURS = 15
"""The level of a step is the median of so many steps before it: few enough to follow a loss that falls quickly."""

LEAST_STEPS = 3 * NEIGHBOURS
"""Nothing is judged before so many steps are known: the spread of a few jumps is too uncertain."""

FLOORS = {"loss_nats": 0.02, "gradient_norm": 0.1}
"""The least standard deviation, in nats and, of the norm's logarithm, 1 (0.1 is a tenth of the norm): where all steps
are nearly equal, one that differs by a little is no spike."""

NORMAL = 1.4826
"""The standard deviation of normal noise is so many times its median absolute deviation."""


class SpikeMonitor:
    """Judges each step's loss and gradient norm by those of the last steps that were no spikes.

    The norm is judged by its logarithm, since what scales a gradient multiplies it. Only what lies above is a spike.

    threshold: the least z-score of a spike. window: how many steps are compared with. patience: after so many spikes in
    a row the next is taken for a new level. active: False to look for nothing but what is no number.
    """

    def __init__(self, threshold=8.0, window=100, patience=10, active=True):
        self.threshold, self.window, self.patience, self.active = threshold, window, patience, active
        self.measured = {name: [] for name in FLOORS}
        """Of the last steps that were no spikes: the losses in nats, and the logarithms of the norms."""
        self.in_a_row = 0
        """How many steps up to now were spikes."""
        self.roll_backs = 0
        """How often the run went back to a checkpoint; going back does not take this back."""

    def judge(self, loss_nats, norm):
        """None, or the spike: {"of": "loss_nats" or "gradient_norm", "z": its z-score}.

        "z" is None of what is no number. A spike after too many others in a row has "new_level": True.
        """
        for name, value in (("loss_nats", loss_nats), ("gradient_norm", norm)):
            if not math.isfinite(value):
                return {"of": name, "z": None}
        if not self.active or len(self.measured["loss_nats"]) < LEAST_STEPS:
            return None
        values = logarithmic(loss_nats, norm)
        scores = {name: z_score(values[name], self.measured[name], FLOORS[name]) for name in FLOORS}
        highest = max(scores, key=scores.get)
        if scores[highest] <= self.threshold:
            return None
        spike = {"of": highest, "z": round(scores[highest], 2)}
        return spike | {"new_level": True} if self.in_a_row >= self.patience else spike

    def learn(self, spike, loss_nats, norm):
        """Take a step into account. spike: what `judge` said; a spike moves the level only if it is a new one."""
        if spike and "new_level" not in spike:
            self.in_a_row += 1
            return
        self.in_a_row = 0
        for name, value in logarithmic(loss_nats, norm).items() if self.active else ():
            before = [] if spike else self.measured[name]
            self.measured[name] = [*before, value][-self.window :]

    def state(self):
        """dict of numbers and lists of numbers."""
        return {**self.measured, "in_a_row": self.in_a_row, "roll_backs": self.roll_backs}

    def load_state(self, numbers):
        self.measured = {name: [float(value) for value in numbers[name]] for name in FLOORS}
        self.in_a_row, self.roll_backs = int(numbers["in_a_row"]), int(numbers["roll_backs"])


def logarithmic(loss_nats, norm):
    """The two as they are judged. A batch without targets has a norm of 0, whose logarithm is taken for -69."""
    return {"loss_nats": loss_nats, "gradient_norm": math.log(max(norm, 1e-30))}


def z_score(value, before, floor):
    """How many robust standard deviations `value` has jumped further than those `before` it did, (n,) with n > 15.

    Jumps instead of values, so that a curve may fall or rise.
    """
    *usual, last = jumps(np.array([*before, value]))
    return robust_z(last, np.array(usual), floor)


def jumps(values):
    """How far each value lies above the median of the NEIGHBOURS before it: (n,) -> (n - NEIGHBOURS,)."""
    levels = np.median(sliding_window_view(values[:-1], NEIGHBOURS), axis=-1)
    return values[NEIGHBOURS:] - levels


def robust_z(value, others, floor):
    """(value - median) / standard deviation, the latter from the median absolute deviation (MAD), at least `floor`.

    Half of the others may be wild without moving either much (Hampel 1974; Iglewicz and Hoaglin 1993).
    """
    median = np.median(others)
    deviation = NORMAL * np.median(abs(others - median))
    return float((value - median) / max(deviation, floor))


def described(spike):
    """A spike in words: "gradient norm 14.2 standard deviations up"."""
    name = {"loss_nats": "loss", "gradient_norm": "gradient norm"}[spike["of"]]
    return f"{name} not a number" if spike["z"] is None else f"{name} {spike['z']:.1f} standard deviations up"


def happened(record):
    """A spike and what was done about it, in one line. record: of metrics.jsonl, with "spike"."""
    where = f"step {record['step']:,}: {described(record['spike'])}"
    if record.get("split") == "roll-back":
        return f"{where}; back to step {record['to_step']:,}, on the data after this batch"
    if "no_roll_back" in record:
        return f"{where}; its batch is skipped, since {record['no_roll_back']}"
    if "skipped" in record:
        return f"{where}; its batch is skipped"
    if "new_level" in record["spike"]:
        return f"{where}, as were those before it: taken for the new level"
    return f"{where}; followed all the same (--training.on-spike skip leaves such batches out)"
