"""Learning rate as a function of the step. Every schedule begins with the same line up to the peak, but DeepSpeed's."""

import math

from tinyllm.training.config import ENDLESS


def learning_rate(config, step):
    """The rate of an update of a TrainingConfig; step counts from 0."""
    options = {"peak": config.learning_rate, "warmup_steps": config.warmup_steps}
    if config.schedule not in ENDLESS:
        options |= {"floor": config.min_learning_rate, "steps": config.steps}
    own = config.schedule_options()
    if config.schedule == "wsd":
        options["decay_steps"] = round(config.steps * own["decay_share"])
    if config.schedule in DEEPSPEED:
        options |= {"start": own["warmup_min_lr"], "shape": own["warmup_type"]}
    if "schedule_steps" in own:
        options["steps"] = own["schedule_steps"] or config.steps
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


def risen(step, warmup_steps, shape):
    """How far up DeepSpeed's warm-ups are, from 0 to 1: ln(k + 1) / ln w, or k / w in a "linear" one.

    Its schedules move on after an update, the first time to k = 0: updates 0 and 1 both have it, k = max(n - 1, 0).
    """
    done = max(step - 1, 0)
    if done >= warmup_steps:
        return 1.0
    return math.log(done + 1) / math.log(warmup_steps) if shape == "log" else done / warmup_steps


def warmup_lr(step, *, peak, start, warmup_steps, shape):
    """DeepSpeed's WarmupLR: rise from `start` to `peak`, stay: η = start + risen (peak - start). At least two steps."""
    return start + risen(step, max(warmup_steps, 2), shape) * (peak - start)


def warmup_decay_lr(step, *, peak, start, warmup_steps, shape, steps):
    """DeepSpeed's WarmupDecayLR: rise as WarmupLR, fall linearly to `start`, one update after `steps`.

    η = start + q (peak - start),  q = (N - (n - 1)) / (N - w)
    """
    warmup_steps = max(warmup_steps, 2)
    if step - 1 < warmup_steps:
        return warmup_lr(step, peak=peak, start=start, warmup_steps=warmup_steps, shape=shape)
    return start + max((steps - (step - 1)) / max(steps - warmup_steps, 1), 0.0) * (peak - start)


def warmup_cosine_lr(step, *, peak, start, floor, warmup_steps, shape, steps):
    """DeepSpeed's WarmupCosineLR: rise as WarmupLR, fall as `warmup_cosine` does: along half a cosine to `floor`."""
    warmup_steps = max(warmup_steps, 2)
    if step - 1 < warmup_steps:
        return warmup_lr(step, peak=peak, start=start, warmup_steps=warmup_steps, shape=shape)
    return warmup_cosine(step, peak=peak, floor=floor, warmup_steps=warmup_steps, steps=steps)


DEEPSPEED = {"warmup_lr": warmup_lr, "warmup_decay_lr": warmup_decay_lr, "warmup_cosine_lr": warmup_cosine_lr}

SCHEDULES = {
    "constant": warmup_constant,
    "linear": warmup_linear,
    "cosine": warmup_cosine,
    "wsd": warmup_stable_decay,
    "inverse_sqrt": warmup_inverse_sqrt,
    **DEEPSPEED,
}
