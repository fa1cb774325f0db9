"""Bands of usual loss: between which values runs of a preset on a text lay, step by step.

They are data, in `bands.json`, measured by tests/benchmarks/measure_bands.py with several seeds. A band belongs to a
preset as it is, on one text (by its hash), cut into tokens in one way.
"""

import dataclasses
import json
import math
from importlib import resources

import numpy as np

from tinyllm.training.config import LOSS_SCALING_OPTIONS, OPTIMIZER_OPTIONS, changed, for_optimizer, unused_options
from tinyllm.training.presets import PRESETS

FORMAT_VERSION = 1
WINDOW = 50
"""Training losses are judged as the mean of so many steps: one batch's loss jitters by more than seeds differ."""

MARGIN = 0.02
"""Three seeds do not show the whole spread: a band is wider than them on each side by their range, and at least by so
large a share of the loss. Every seed that was measured lies, at all places, in the band that the other two make."""

NEUTRAL = {
    "seed", "accumulation", "recompute", "evaluate_every", "evaluation_windows", "sample_every", "sample_tokens",
    "checkpoint_every", "keep_checkpoints", "precision", "loss_scaling", *unused_options(None, LOSS_SCALING_OPTIONS),
}  # fmt: skip
"""Training options that leave the loss where it is, or nearly (half precision, by less than MARGIN)."""

FOLLOWING = {"warmup_steps", "min_learning_rate"}
"""Training options that `pretrain` sets by others, unless they are given."""


@dataclasses.dataclass(frozen=True)
class Band:
    """What runs of a preset on a text did. training, held_out: rows (step, lowest, highest loss in nats per token)."""

    preset: str
    corpus_sha256: str
    tokenizer_hash: str
    steps: int
    seeds: tuple
    training: tuple
    held_out: tuple

    def within(self, curve):
        """(step, low, high) of a curve, "training" or "held_out", widened by the margin: an array (n, 3)."""
        steps, low, high = np.array(getattr(self, curve), float).reshape(-1, 3).T
        margin = np.maximum(high - low, MARGIN * high)
        return np.stack([steps, low - margin, high + margin], axis=-1)


def all_bands():
    """Every Band of this version."""
    text = resources.files("tinyllm.training").joinpath("bands.json").read_text(encoding="utf-8")
    return [from_dict(entry) for entry in json.loads(text)["bands"]]


def from_dict(entry):
    curves = {curve: tuple(map(tuple, entry[curve])) for curve in ("training", "held_out")}
    names = ("preset", "corpus_sha256", "tokenizer_hash", "steps")
    return Band(**{name: entry[name] for name in names}, seeds=tuple(entry["seeds"]), **curves)


def find_band(config, bands=None):
    """The Band for a run's config.json, or None: same preset, model, text, tokenizer and number of steps."""
    key = (
        config.get("preset"),
        (config.get("corpus") or {}).get("sha256"),
        (config.get("tokenizer") or {}).get("hash"),
        (config.get("training") or {}).get("steps"),
    )
    if changed_options(config)[0]:
        return None
    for band in all_bands() if bands is None else bands:
        if (band.preset, band.corpus_sha256, band.tokenizer_hash, band.steps) == key:
            return band
    return None


def changed_options(config):
    """(model, training): what a run's config has otherwise than its preset, dicts option -> (preset's, its own).

    Options that this preset or version does not know are left out, so is what `pretrain` changes by itself with another
    number of steps or another learning rate.
    """
    usual = usual_training(config)
    if usual is None:
        return {}, {}
    preset = PRESETS[config["preset"]]
    model, training = config.get("model") or {}, config.get("training") or {}
    usual_model = preset.model_config(model.get("vocab_size") or preset.vocab_size).as_dict()
    training = effective(training, usual.optimizer)
    changes = differences(effective(usual.as_dict(), usual.optimizer), training, NEUTRAL)
    followed = changed(usual, {name: own for name, (_, own) in changes.items() if name not in FOLLOWING}).as_dict()
    for name in FOLLOWING & changes.keys():
        if math.isclose(followed[name], training[name]):
            del changes[name]
    if usual.optimizer != preset.training.optimizer:
        changes = {"optimizer": (preset.training.optimizer, usual.optimizer)} | changes
    return differences(usual_model, model), changes


def effective(training, optimizer):
    """Training options with the optimizer's defaults for those not given, and without those that it does not use, which
    older runs have recorded."""
    unused, defaults = unused_options(optimizer), OPTIMIZER_OPTIONS.get(optimizer, {})
    given = {name: value for name, value in training.items() if name not in unused}
    return given | {name: value for name, value in defaults.items() if given.get(name, value) is None}


def usual_training(config):
    """The TrainingConfig of a run's preset, with the run's optimizer and the rates that suit it; None without one."""
    preset = PRESETS.get(config.get("preset"))
    optimizer = (config.get("training") or {}).get("optimizer")
    if preset is None or optimizer in (None, preset.training.optimizer):
        return preset and preset.training
    return for_optimizer(preset.training, optimizer)


def differences(usual, own, leave_out=()):
    return {
        name: (value, own[name])
        for name, value in usual.items()
        if name not in leave_out and name in own and own[name] != value
    }


def trailing_means(values, window=WINDOW):
    """The mean of each value and those before it, `window` in all where there are so many: (n,) -> (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (sums[last] - sums[first]) / (last - first)
