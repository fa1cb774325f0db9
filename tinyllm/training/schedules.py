"""Learning rate as a function of the step. Every schedule begins with the same line up to the peak."""

import math

from tinyllm.training.config import ENDLESS

DECAY_SHARE = 0.2


def learning_rate(config, step):
    """The rate of an update of a TrainingConfig; step counts from 0."""
    options = {"peak": config.learning_rate, "warmup_steps": config.warmup_steps}
    if config.schedule not in ENDLESS:
        options |= {"floor": config.min_learning_rate, "steps": config.steps}
    if config.schedule == "wsd":
        options["decay_steps"] = round(config.steps * config.given("decay_share", DECAY_SHARE))
    return SCHEDULES[config.schedule](step, **options)


def warmup(step, peak, warmup_steps):
    """A line from peak / (warmup_steps + 1) to `peak` at step warmup_steps; the first update already moves."""
    return peak * (step + 1) / (warmup_steps + 1)


def warmup_constant(step, *, peak, warmup_steps):
    """Rise linearly, stay: η = peak."""
    return warmup(step, peak, warmup_steps) if step < warmup_steps else peak


def warmup_linear(step, *, peak, floor, warmup_steps, steps):
    """Rise linearly over `warmup_steps`, fall linearly to `floor` at `steps`, stay there (Devlin et al. 2019).

    η = floor + (1 - q) (peak - floor),  q = (n - w) / (N - w)
    """
    if step < warmup_steps:
        return warmup(step, peak, warmup_steps)
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return floor + (1 - progress) * (peak - floor)


def warmup_cosine(step, *, peak, floor, warmup_steps, steps):
    """Rise linearly over `warmup_steps`, fall along half a cosine to `floor` at `steps`, stay there.

    η = floor + ½ (1 + cos πq) (peak - floor),  q = (n - w) / (N - w)  (Loshchilov, Hutter 2017; nanoGPT's warm-up)
    """
    if step < warmup_steps:
        return warmup(step, peak, warmup_steps)
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return floor + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - floor)


def warmup_stable_decay(step, *, peak, floor, warmup_steps, steps, decay_steps):
    """Rise linearly, stay at `peak`, fall linearly to `floor` over the last `decay_steps` (Hu et al. 2024, MiniCPM).

    η = floor + min(1, (N - n) / D) (peak - floor). The line is that of Hägele et al. 2024. Until the fall begins
    nothing depends on the number of steps, so a run may be made longer and a checkpoint of it ended in several ways.
    """
    if step < warmup_steps:
        return warmup(step, peak, warmup_steps)
    left = min(max((steps - step) / max(decay_steps, 1), 0.0), 1.0)
    return floor + left * (peak - floor)


def warmup_inverse_sqrt(step, *, peak, warmup_steps):
    """Rise linearly, fall with the square root of the steps: η = peak √((w + 1) / (n + 1)) (Vaswani et al. 2017)."""
    if step < warmup_steps:
        return warmup(step, peak, warmup_steps)
    return peak * math.sqrt((warmup_steps + 1) / (step + 1))


SCHEDULES = {
    "constant": warmup_constant,
    "linear": warmup_linear,
    "cosine": warmup_cosine,
    "wsd": warmup_stable_decay,
    "inverse_sqrt": warmup_inverse_sqrt,
}
