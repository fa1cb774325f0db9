"""A run as arrays: what `metrics.jsonl` and `config.json` hold, ready to be looked through for causes."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np

from tinyllm.data import TokenFile
from tinyllm.errors import UserError
from tinyllm.files import read_json
from tinyllm.formats.run_folders import read_config
from tinyllm.training.bands import WINDOW, trailing_means
from tinyllm.training.config import TrainingConfig
from tinyllm.training.metrics import METRICS, is_finite, read_metrics

COUNTED_TOKENS = 10_000_000
"""Token frequencies are counted over so many tokens at most: they change little after that, and it takes a second."""


@dataclasses.dataclass(frozen=True)
class History:
    """config: of config.json. records: of metrics.jsonl. unigram: what a model that knows only how often each token
    occurs would lose, in nats per token; None where nothing in the folder tells."""

    config: dict
    records: list
    unigram: float | None = None

    def part(self, name):
        """One part of config.json; empty if it is missing."""
        return self.config.get(name) or {}

    def option(self, name):
        """A training option of the run; None where the config does not say."""
        return self.part("training").get(name)

    @functools.cached_property
    def train(self):
        return [record for record in self.records if record.get("split") == "train"]

    @functools.cached_property
    def followed(self):
        """The training steps that changed the weights, where loss and gradient were measured."""
        return [r for r in self.train if "skipped" not in r and is_finite(r.get("loss_nats"))]

    def of_steps(self, name):
        """A measurement of all followed steps, (n,) floats, NaN where it is missing."""
        return np.array([r[name] if is_finite(r.get(name)) else math.nan for r in self.followed], float)

    @functools.cached_property
    def steps(self):
        return np.array([record["step"] for record in self.followed], int)

    @functools.cached_property
    def loss(self):
        return self.of_steps("loss_nats")

    @functools.cached_property
    def means(self):
        """Trailing means of the loss, over fewer steps in a short run: (n,)."""
        return trailing_means(self.loss, window=self.window)

    @property
    def window(self):
        return min(WINDOW, max(len(self.loss) // 8, 1))

    @property
    def step(self):
        """How many steps were done."""
        return max((record["step"] for record in self.train), default=0)

    @property
    def planned(self):
        """How many steps the run is to have; those it has where the config does not say."""
        return self.option("steps") or self.step

    @property
    def rate(self):
        """The peak of the learning rate, as configured or else as recorded; the default where neither is known."""
        recorded = self.of_steps("learning_rate")
        known = [self.option("learning_rate"), *recorded[np.isfinite(recorded)]]
        return float(max((rate for rate in known if rate is not None), default=TrainingConfig.learning_rate))

    @property
    def finished(self):
        return self.step >= self.planned

    @property
    def vocab_size(self):
        return self.part("model").get("vocab_size") or self.part("tokenizer").get("vocab_size")

    @property
    def guessing(self):
        """The loss of a model that knows nothing: ln V; the first loss where V is not known."""
        return math.log(self.vocab_size) if self.vocab_size else float(self.loss[0])

    @functools.cached_property
    def held_out(self):
        """(steps, losses) of held-out text, measured on the same number of windows; the last evaluation, which looks at
        all of it, only where it is the only one."""
        measured = [r for r in self.records if r.get("split") == "validation" and is_finite(r.get("loss_nats"))]
        same = [r for r in measured if r.get("targets") == measured[0].get("targets")]
        return np.array([r["step"] for r in same], int), np.array([r["loss_nats"] for r in same], float)

    @property
    def last_evaluation(self):
        """The last record of held-out text, or None."""
        measured = [r for r in self.records if r.get("split") == "validation" and is_finite(r.get("loss_nats"))]
        return measured[-1] if measured else None

    @property
    def bytes_per_token(self):
        """Of held-out text; None before the first evaluation."""
        last = self.last_evaluation
        if last is None or not last.get("bits_per_byte"):
            return None
        return last["loss_nats"] / (math.log(2) * last["bits_per_byte"])

    @property
    def epochs(self):
        """How often each place of the text was seen so far; None where it is not known."""
        text, sample = self.part("corpus").get("training_bytes"), self.part("model").get("max_position_embeddings")
        if not (text and sample and self.bytes_per_token and self.option("batch_size")):
            return None
        return self.step * self.option("batch_size") * sample * self.bytes_per_token / text


def read_history(folder, config=None):
    """The History of a run folder; UserError where it holds no run. config: of config.json, if that is read already.

    config.json and metrics.jsonl are enough. Where data/training.tokens or summary.json are there too, the loss of
    counting tokens is known.
    """
    folder = Path(folder)
    if config is None:
        config = read_config(folder)
        if "training" not in config and not (folder / METRICS).exists():
            raise UserError(f"{folder} holds a model but no training run: there is nothing to say of its loss")
    history = History(config, read_metrics(folder))
    return dataclasses.replace(history, unigram=unigram_nats(folder, history))


def unigram_nats(folder, history):
    """The loss of counting tokens: the entropy of their frequencies in the training text, or what the summary says."""
    tokens = folder / "data" / "training.tokens"
    if tokens.exists():
        ids = TokenFile.open(tokens, history.part("tokenizer").get("hash"), verify=False).tokens[:COUNTED_TOKENS]
        frequencies = np.unique(ids, return_counts=True)[1] / len(ids)
        return float(-(frequencies * np.log(frequencies)).sum())
    summary = folder / "summary.json"
    bits = (read_json(summary).get("bits_per_byte") or {}).get("unigram") if summary.exists() else None
    return bits * math.log(2) * history.bytes_per_token if bits and history.bytes_per_token else None
