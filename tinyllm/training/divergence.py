"""When the loss is no longer a number: stop before the update, say which op it was and what to try."""

import contextlib

import autograd as ag
from tinyllm.errors import UserError
from tinyllm.training.spikes import described

SETTINGS = (
    "a lower learning rate (--training.learning-rate), a longer warm-up (--training.warmup-steps) "
    "or a smaller clip (--training.clip)"
)


class Diverged(UserError):
    """The loss or its gradient is no longer a number. The weights are still those before the step.

    step: the one that failed. cause: the NonFinite that `ag.debug.first_nan` raised, or a sentence. record: what was
    measured of the step.
    """

    def __init__(self, step, cause, record=None):
        self.step, self.cause, self.record = step, cause, record or {"first_nan": findings(cause)}
        super().__init__(
            f"step {step} came to no number, so training stopped before its update; the weights and the newest "
            f"checkpoint are those from before. {sentence(cause)} {advice(cause)}"
        )


class TooManySpikes(Diverged):
    """A spike after as many roll-backs as are allowed: other data did not help."""

    def __init__(self, step, roll_backs, record):
        self.step, self.cause, self.record = step, described(record["spike"]), record
        times = "once" if roll_backs == 1 else f"{roll_backs} times"
        UserError.__init__(
            self,
            f"step {step} is a spike ({self.cause}), and the run has gone back {times} already, so training stopped "
            f"before its update: it is not the data. Begin again in another run folder with {SETTINGS}. With "
            "--training.on-spike skip it would leave such batches out and go on.",
        )


class LossScaleExhausted(Diverged):
    """An overflow at the least loss scale: there is none that these gradients fit."""

    def __init__(self, step, record):
        self.step, self.record = step, record
        self.cause = f"gradients overflow float16 even at the least loss scale, {record['loss_scale']:g}"
        record["first_nan"] = findings(self.cause)
        UserError.__init__(
            self,
            f"step {step}: {self.cause} (min_loss_scale), so training stopped before its update. Begin again in "
            f"another run folder with a smaller least scale, --precision bf16, {SETTINGS}.",
        )


def findings(cause):
    """The cause as fields of a record."""
    if isinstance(cause, ag.debug.NonFinite):
        return {"op": cause.op, "phase": cause.phase, "layer": cause.path}
    return {"cause": str(cause)}


def sentence(cause):
    """The cause as one or more sentences."""
    text = "; ".join(line.strip() for line in str(cause).splitlines())
    return text[0].upper() + text[1:] + "."


def advice(cause):
    """What to try."""
    if "already when it came in" in str(cause):
        return (
            f"An earlier update overflowed, or the data is broken: go back to a checkpoint before it, with {SETTINGS}."
        )
    return f"Begin again in another run folder with {SETTINGS}."


@contextlib.contextmanager
def watched(training):
    """`with watched(training):` every op is watched (`first_nan`, `guard`), at some cost; NaN is raised as Diverged."""
    try:
        with ag.debug.first_nan(), ag.debug.guard():
            yield
    except ag.debug.NonFinite as found:
        raise Diverged(training.step + 1, found) from None


class FoundByAnother(ag.debug.NonFinite):
    """What `first_nan` has raised on another rank."""

    def __init__(self, text, op, phase, path):
        self.op, self.phase, self.path, self.at = op, phase, path, None
        FloatingPointError.__init__(self, text)


def first_cause(training, step):
    """Repeat a step that came to no number, watching: the NonFinite of the op that made the first one, or a sentence.

    step() computes loss and gradients as before: same weights, batch and seeds, so it goes wrong in the same place.
    Several ranks watch each its own share, and agree on what the first of them has found.
    """
    training.store.zero()
    error = None
    with training.store.alone():
        try:
            with ag.debug.first_nan():
                step()
        except ag.debug.NonFinite as found:
            error = found
        size, name = largest_gradient(training.store.parameters)
    mine = {"broke": error and {"text": str(error), "op": error.op, "phase": error.phase, "path": error.path}}
    of_ranks = training.ranks.exchange(mine | {"size": str(size), "name": name})
    for rank, finding in enumerate(of_ranks):
        if finding["broke"]:
            return error if rank == training.ranks.rank else FoundByAnother(**finding["broke"])
    size, name = largest((float(finding["size"]), finding["name"]) for finding in of_ranks)
    return (
        f"every op gave finite numbers; the largest entry of a gradient is {size:g}, in {name}, "
        "and the sum of their squares, or of the pieces of the batch, overflows"
    )


def largest_gradient(parameters):
    """(size, name): the largest entry of a gradient that there is, and the parameter it is of."""
    return largest((float(abs(p.grad).max()), name) for name, p in parameters.items() if p.grad is not None)


def largest(entries):
    """Of pairs (size, name), that with the largest size; NaN is larger than every number. (0.0, "") of none."""
    return max(entries, key=lambda entry: (entry[0] != entry[0], entry[0]), default=(0.0, ""))
