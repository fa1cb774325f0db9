"""When the loss is no longer a number: stop before the update, say which op it was and what to try."""

import contextlib

import autograd as ag
from tinyllm.errors import UserError


class Diverged(UserError):
    """The loss or its gradient is no longer a number. The weights are still those before the step.

    step: the one that failed. cause: the NonFinite that `ag.debug.first_nan` raised, or a sentence.
    """

    def __init__(self, step, cause):
        self.step, self.cause = step, cause
        super().__init__(
            f"step {step} came to no number, so training stopped before its update; the weights and the newest "
            f"checkpoint are those from before. {sentence(cause)} {advice(cause)}"
        )


def sentence(cause):
    """The cause as one or more sentences."""
    text = "; ".join(line.strip() for line in str(cause).splitlines())
    return text[0].upper() + text[1:] + "."


def advice(cause):
    """What to try."""
    settings = (
        "a lower learning rate (--training.learning-rate), a longer warm-up (--training.warmup-steps) "
        "or a smaller clip (--training.clip)"
    )
    if "already when it came in" in str(cause):
        return (
            f"An earlier update overflowed, or the data is broken: go back to a checkpoint before it, with {settings}."
        )
    return f"Begin again in another run folder with {settings}."


@contextlib.contextmanager
def watched(training):
    """`with watched(training):` every op is watched (`first_nan`, `guard`), at some cost; NaN is raised as Diverged."""
    try:
        with ag.debug.first_nan(), ag.debug.guard():
            yield
    except ag.debug.NonFinite as found:
        raise Diverged(training.step + 1, found) from None


def first_cause(training, step):
    """Repeat a step that came to no number, watching: the NonFinite of the op that made the first one.

    step() computes loss and gradients as before: same weights, batch and seeds, so it goes wrong in the same place.
    """
    training.store.zero()
    try:
        with ag.debug.first_nan():
            step()
    except ag.debug.NonFinite as found:
        return found
    largest = {name: float(abs(p.grad).max()) for name, p in training.store.parameters.items() if p.grad is not None}
    name = max(largest, key=lambda name: (largest[name] != largest[name], largest[name]))
    return (
        f"every op gave finite numbers; the largest entry of a gradient is {largest[name]:g}, in {name}, "
        "and the sum of their squares, or of the pieces of the batch, overflows"
    )
