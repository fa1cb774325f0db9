"""What can be wrong with a run, each cause a function of its History that finds it or returns None.

CAUSES lists them, the gravest first: what explains the others comes before them. NOTES are worth a remark, but do not
make a loss wrong.
"""

import dataclasses
import math

import numpy as np

from tinyllm.training.bands import usual_training

FEW_STEPS = 100
"""Of fewer steps nothing is said but what is certain: warm-up and the first fall of the loss take about so many."""

RISE = 0.05
"""A mean loss that rises by more than this share of its lowest value is no jitter: runs of quickstart and of
shakespeare-char-cpu, three seeds each, rose by 0.016 at most."""

FLAT = 0.01
"""A loss that changes by less than this share of ln V over a third of the run stands still."""

NEAR_UNIGRAM = 0.05
"""Within this share of the entropy of single tokens, a model has learned their frequencies and nothing else."""

COUNTING, NEAR_COUNTING = 0.8, 0.12
"""The entropy of single tokens as a share of ln V, and how far texts are from it: 0.79 for Shakespeare's letters, 0.82
for 4,096 tokens of Python's manual, 0.88 for letters of few words."""

LITTLE = 0.5
"""A run that has gone less than this share of the way from ln V to the entropy of single tokens has hardly moved: that
is the easy part, and the same six runs had gone at least 1.6 times as far after 100 steps."""

SMALLER_RATE = 1 / 3
"""A learning rate below this share of the preset's is named as the reason of a slow fall."""

OVERFIT = 0.01
"""Held-out loss that lies by this share above its lowest, twice in a row, has turned."""

TOO_GOOD = 0.6
"""Bits per byte of held-out text that no model of natural text comes near; the largest reach 0.7 to 0.8 on English."""

LOW_SCALE = 16
"""float16's scale began at 65,536 and was halved so often: gradients of the size that clipping allows would not
overflow at it, so they are far larger or no numbers at all."""

SKIPPED = 0.1
"""A scale that has settled overflows about once in 2,000 steps, its interval of growth; at a tenth it falls on."""

HARD_CLIP = 10
"""A typical norm so many times the clip: clipping is then no guard against outliers but the rule."""

MANY_EPOCHS = 16
"""Repeating a text up to 4 times is nearly as good as new text, after 16 there is next to nothing left to learn from it
(Muennighoff et al. 2023, "Scaling Data-Constrained Language Models")."""

SLOWER, UNSTEADY = 0.6, 0.5
"""The last third at less than this share of the first third's speed; steps whose middle half spreads this much."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """cause: its name. why: what was seen, in a sentence. advice: what to try. options: what to change in a new run,
    dict option -> value (None for a switch); None where no new run would help."""

    cause: str
    why: str
    advice: str = ""
    options: dict | None = None


# ------------------------------------------------------------------------------------------------- what breaks a run


def diverged(history):
    """The loss or its gradient came to no number."""
    ends = [r for r in history.records if r.get("split") == "diverged" and r["step"] > history.step]
    event = ends[-1] if ends else None
    last = history.train[-1] if history.train else {}
    if event is None and not ("not_finite" in last and "skipped" not in last):
        return None
    record = event or last
    step, broke = record["step"], record.get("first_nan") or {}
    where = f" in {broke['layer']}" if broke.get("layer") else ""
    named = f"; the {broke.get('phase', 'forward')} of {broke['op']}{where} made it" if broke.get("op") else ""
    rise = largest_rise(history)
    before = f", after the loss had risen from {rise[0]:.2f} to {rise[1]:.2f}" if rise else ""
    what = "there was one spike too many" if is_spike(record) else "the loss or its gradient was no number"
    why = f"At step {step:,} {what}{named}{before}."
    if history.option("precision") == "fp16":
        advice = "bfloat16, which has float32's range: --precision bf16, or --precision fp32."
        return Finding("diverged", why, advice, {"precision": "bf16"})
    rate = lower_rate(history)
    return Finding("diverged", why, f"a smaller learning rate: {shown('learning_rate', rate)}.", rate)


def is_spike(record):
    """Was a number, but one far from the others, the end of the run?"""
    return (record.get("spike") or {}).get("z") is not None and "first_nan" not in record


def scale_collapsing(history):
    """float16's loss scale is halved again and again."""
    scales = [r["loss_scale"] for r in history.train if "loss_scale" in r]
    if len(scales) < 20:
        return None
    lately = [r.get("skipped") == "overflow" for r in history.train[-FEW_STEPS:]]
    share = sum(lately) / len(lately)
    if scales[-1] > LOW_SCALE and share <= SKIPPED:
        return None
    why = (
        f"The loss scale of float16 fell from {scales[0]:,g} to {scales[-1]:,g}, and {share:.0%} of the last "
        f"{len(lately)} steps were skipped: gradients overflow whatever the scale."
    )
    advice = "bfloat16, which needs no scale: --precision bf16, or --precision fp32."
    return Finding("float16 scale collapsing", why, advice, {"precision": "bf16"})


def no_learning(history):
    """Nothing moves: no gradient, no learning rate, or the same loss at every step."""
    norms, rates = history.of_steps("gradient_norm"), history.of_steps("learning_rate")
    half = len(history.loss) // 2
    if len(history.loss) < 10:
        return None
    if np.isfinite(rates).any() and np.nanmax(rates) == 0:
        rate = usual_rate(history) or 1e-3
        why = "The learning rate is 0 at every step, so no weight changes."
        advice = f"a rate above 0: {shown('learning_rate', {'training.learning_rate': rate})}."
        return Finding("no learning", why, advice, {"training.learning_rate": rate})
    if typical(norms[half:]) < 1e-9:
        why = (
            "The gradient is 0, so no weight changes: the graph is cut somewhere, or a layer says the same to any text."
        )
        return Finding(
            "no learning", why, "--debug, which watches every op and names the one that breaks.", {"debug": None}
        )
    if np.ptp(history.loss) < 1e-6:
        why = f"The loss is {history.loss[-1]:.4f} at every step: every batch is the same, or nothing moves."
        return Finding(
            "no learning", why, "another text, and --inspect, which shows what a step computes.", {"inspect": None}
        )
    return None


def rate_too_large(history):
    """The loss rises, and does not come back; or stands where only frequencies are known, at a rate above the usual."""
    if len(history.loss) < FEW_STEPS // 2:
        return None
    rate, rise = lower_rate(history), largest_rise(history)
    advice = f"a smaller learning rate: {shown('learning_rate', rate)}."
    if rise:
        low, high, before, after = rise
        grown = norm_growth(history)
        why = f"The loss rose from {low:.2f} (step {before:,}) to {high:.2f} (step {after:,}){grown}"
        return Finding(
            "learning rate too large", f"{why}: steps overshoot, the learning rate is too large.", advice, rate
        )
    usual = usual_rate(history)
    if usual and history.rate > 2 * usual and standing_still(history) and near_frequencies(history):
        why = (
            f"The loss stands at {history.means[-1]:.2f}, where a model knows how often tokens occur and nothing else: "
            f"the learning rate {history.rate:g} is {history.rate / usual:.0f} "
            "times the preset's."
        )
        return Finding("learning rate too large", why, advice, rate)
    return None


def rate_too_small(history):
    """The loss falls all the time, but hardly gets anywhere."""
    if len(history.loss) < FEW_STEPS or not falling(history):
        return None
    if standing_still(history) and near_frequencies(history):
        return None
    easy = history.guessing - counting(history)
    gone = (history.guessing - history.means[-1]) / easy
    own, usual = history.rate, usual_rate(history)
    if gone > LITTLE and not (usual and own < SMALLER_RATE * usual and gone < 1):
        return None
    rate = higher_rate(history)
    compared = f", {own / usual:.2g} of the preset's" if usual and own < SMALLER_RATE * usual else ""
    why = (
        f"The loss falls evenly but hardly moves: from {history.guessing:.2f} to {history.means[-1]:.2f} in "
        f"{history.step:,} steps. The learning rate {own:g} is too small{compared}."
    )
    return Finding("learning rate too small", why, f"a larger rate: {shown('learning_rate', rate)}.", rate)


def stuck(history):
    """Frequencies of tokens were learned, and nothing about what follows what."""
    if len(history.loss) < FEW_STEPS or not standing_still(history):
        return None
    if near_frequencies(history):
        known = "" if history.unigram else "about "
        why = (
            f"The loss stands still at {history.means[-1]:.2f}; a model that knows only how often each token occurs "
            f"reaches {known}{counting(history):.2f}. This one makes no use of the tokens before."
        )
        rate = lower_rate(history) | {"training.warmup_steps": max(history.planned // 5, 1)}
        advice = (
            "text in its order (no shuffled letters, words or lines); if it is, a smaller rate with a longer warm-up: "
            f"{shown('learning_rate', rate)} {shown('warmup_steps', rate)}."
        )
        return Finding("stuck at single tokens", why, advice, rate)
    if history.means[-1] > history.guessing - 0.1 * (history.guessing - counting(history)):
        why = f"The loss stays at {history.means[-1]:.2f}, and guessing is {history.guessing:.2f}: nothing was learned."
        rate = higher_rate(history)
        own, usual = history.rate, usual_rate(history)
        cause = "learning rate too small" if usual and own < SMALLER_RATE * usual else "no learning"
        if cause != "no learning":
            why += f" The learning rate {own:g} is {own / usual:.2g} of the preset's."
        return Finding(cause, why, f"a larger learning rate: {shown('learning_rate', rate)}.", rate)
    return None


def overfitting(history):
    """Held-out loss rises while training loss falls."""
    steps, losses = history.held_out
    if len(losses) < 4:
        return None
    best = int(losses.argmin())
    later = losses[best + 1 :]
    if len(later) < 2 or not (later[-2:] > (1 + OVERFIT) * losses[best]).all():
        return None
    if not falling_since(history, steps[best]):
        return None
    epochs = f" The text was read {history.epochs:.1f} times." if 2 < (history.epochs or 0) <= MANY_EPOCHS else ""
    why = (
        f"Held-out loss was lowest at step {steps[best]:,} ({losses[best]:.3f}) and has risen to {losses[-1]:.3f}, "
        f"while training loss fell to {history.means[-1]:.3f}: it learns the text by heart.{epochs}"
    )
    dropout = history.part("model").get("dropout") or 0
    options = {"model.dropout": min(dropout + 0.2, 0.5)}
    advice = (
        f"more text, dropout ({shown('dropout', options)}), or fewer steps: --steps {steps[best]}, where it was best."
    )
    return Finding("overfitting", why, advice, options)


def too_good(history):
    """Held-out loss lower than any model of text reaches."""
    last = history.last_evaluation
    if last is None or not last.get("bits_per_byte") or last["bits_per_byte"] >= TOO_GOOD:
        return None
    why = (
        f"Held-out text costs {last['bits_per_byte']:.2f} bits per byte; natural text costs large models 0.7 or more. "
        "Text that is held out probably occurs in the training text too, or the text repeats itself."
    )
    advice = "a text without duplicates, or with <|endoftext|> between its documents, so that whole ones are held out."
    return Finding("held-out text in the training text", why, advice)


CAUSES = (
    diverged, scale_collapsing, no_learning, rate_too_large, rate_too_small, stuck, overfitting, too_good,
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------- worth a remark


def spikes(history):
    """Loss spikes that the run met, and what it did about them."""
    met = [r for r in history.records if r.get("spike") and r.get("split") != "diverged"]
    if not met:
        return None
    back = sum(record.get("split") == "roll-back" for record in met)
    skipped = sum(record.get("skipped") == "spike" for record in met if record.get("split") != "roll-back")
    done = [f"{skipped:,} skipped"] * bool(skipped) + [f"{back:,} rolled back"] * bool(back)
    followed = len(met) - skipped - back
    done += [f"{followed:,} followed all the same"] * bool(followed)
    first = min(record["step"] for record in met)
    noun, at = (
        ("loss spike", f"at step {first:,}") if len(met) == 1 else ("loss spikes", f"the first at step {first:,}")
    )
    why = f"{len(met):,} {noun}, {at}: {', '.join(done)}."
    advice = "to leave such batches out: --training.on-spike skip." if followed else ""
    return Finding("loss spikes", why, advice, {"training.on_spike": "skip"} if followed else None)


def hard_clipping(history):
    """The clip cuts nearly every gradient to a small part of itself."""
    clip, norms = history.option("clip"), history.of_steps("gradient_norm")
    if not clip or len(norms) < 20:
        return None
    norm = typical(norms[len(norms) // 2 :])
    if not norm > HARD_CLIP * clip:
        return None
    why = (
        f"Every gradient is clipped: its norm is typically {norm:.3g}, {norm / clip:,.0f} times the clip {clip:g}, "
        "so that all batches count alike, however little they have to say."
    )
    options = {"training.clip": float(f"{2 * norm:.1g}")}
    return Finding("clipping at every step", why, f"a clip above the usual norm: {shown('clip', options)}.", options)


def many_epochs(history):
    """The same text again and again."""
    if not history.epochs or history.epochs <= MANY_EPOCHS:
        return None
    why = f"The text was read {history.epochs:.0f} times; after {MANY_EPOCHS} there is little left to learn from it."
    return Finding("text repeated", why, "more text, or fewer steps.")


def speed(history):
    """Steps became slower, or take very different times."""
    speeds = history.of_steps("tokens_per_second")[10:]  # the first ones compile and warm up
    speeds = speeds[np.isfinite(speeds)]
    if len(speeds) < 60:
        return None
    third = len(speeds) // 3
    first, last = np.median(speeds[:third]), np.median(speeds[-third:])
    if last < SLOWER * first:
        why = f"Speed fell from {first:,.0f} to {last:,.0f} tokens/s: something else used the machine, or it grew hot."
        return Finding("speed falling", why)
    low, high = np.percentile(speeds, [25, 75])
    if high - low > UNSTEADY * np.median(speeds):
        why = f"Speed is unsteady, {low:,.0f} to {high:,.0f} tokens/s in half of the steps: something else runs here."
        return Finding("speed unsteady", why)
    return None


NOTES = (spikes, hard_clipping, many_epochs, speed)


# ----------------------------------------------------------------------------------------------------- how one looks


def typical(values):
    """The median of those that were measured; NaN, which is neither small nor large, if none was."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan


def jitter(history):
    """The standard deviation that a trailing mean has from the batches alone, from differences of neighbours."""
    return float(np.std(np.diff(history.loss)) / math.sqrt(2 * history.window)) if len(history.loss) > 2 else 0.0


def largest_rise(history):
    """(lowest, highest, its step, its step) of the mean loss's largest rise, or None where it is only jitter.

    A new model's loss is ln V, at step 0.
    """
    means = np.concatenate([[history.guessing], history.means[history.window :]])
    steps = np.concatenate([[0], history.steps[history.window :]])
    lowest = np.minimum.accumulate(means)
    top = int(np.argmax(means - lowest))
    bottom = int(np.argmin(means[: top + 1]))
    low, high = float(means[bottom]), float(means[top])
    if high - low <= max(RISE * low, 6 * jitter(history)):
        return None
    return low, high, int(steps[bottom]), int(steps[top])


def norm_growth(history):
    """ ", and the gradient norm grew 12 times", where it did."""
    norms = history.of_steps("gradient_norm")
    fifth = max(len(norms) // 5, 1)
    growth = typical(norms[-fifth:]) / max(typical(norms[:fifth]), 1e-12)
    return f", and the gradient norm grew {growth:.0f} times" if growth > 3 else ""


def standing_still(history):
    """Does the mean loss no longer change, over the last third?"""
    change = abs(history.means[-1] - history.means[-max(len(history.means) // 3, 1)])
    return change < max(FLAT * history.guessing, 4 * jitter(history))


def falling(history):
    """Is the mean loss lower than in the middle of the run?"""
    return history.means[-1] < history.means[len(history.means) // 2] - 4 * jitter(history)


def falling_since(history, step):
    """Is the mean loss lower than at a step?"""
    then = int(np.searchsorted(history.steps, step))
    return then < len(history.means) and history.means[-1] < history.means[then]


def counting(history):
    """What counting tokens would reach; where nobody counted, a usual share of ln V."""
    return history.unigram or COUNTING * history.guessing


def near_frequencies(history):
    """Is the loss that of a model which knows frequencies only?"""
    return abs(history.means[-1] / counting(history) - 1) < (NEAR_UNIGRAM if history.unigram else NEAR_COUNTING)


def usual_rate(history):
    """The learning rate of the run's preset, or the one that suits the run's optimizer there; None without a preset."""
    usual = usual_training(history.config)
    return usual and usual.learning_rate


def lower_rate(history):
    """Options with the preset's learning rate where the run's is above it, else a third of the run's."""
    own, usual = history.rate, usual_rate(history)
    return {"training.learning_rate": one_digit(own / 3) if not usual or own <= 2 * usual else usual}


def higher_rate(history):
    """Options with the preset's learning rate where the run's is below it, else three times the run's."""
    own, usual = history.rate, usual_rate(history)
    return {"training.learning_rate": usual if usual and own < SMALLER_RATE * usual else one_digit(3 * own)}


def one_digit(number):
    return float(f"{number:.1g}")


def shown(name, options):
    """`--training.learning-rate 0.001` of the option with that name."""
    option = next(option for option in options if option.endswith(name))
    return f"--{option.replace('_', '-')} {options[option]:g}"
