"""Learning rate as a function of the step."""

import math


def learning_rate(config, step):
    """The rate of an update of a TrainingConfig; step counts from 0."""
    return warmup_cosine(
        step,
        peak=config.learning_rate,
        floor=config.min_learning_rate,
        warmup_steps=config.warmup_steps,
        steps=config.steps,
    )


def warmup_cosine(step, *, peak, floor, warmup_steps, steps):
    """Rise linearly to `peak` over `warmup_steps`, fall along half a cosine to `floor` at `steps`, stay there.

    step counts from 0; the first update already moves (Loshchilov, Hutter 2017, with nanoGPT's warm-up).
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return floor + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - floor)
