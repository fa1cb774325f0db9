"""Five lines about a run: the verdict with its numbers, why, what else was noticed, what to try, the command for it."""

import dataclasses
from pathlib import Path

import numpy as np

from tinyllm.training.bands import Band, changed_options, find_band, trailing_means
from tinyllm.training.diagnosis.causes import (
    CAUSES,
    FEW_STEPS,
    NOTES,
    SMALLER_RATE,
    Finding,
    diverged,
    falling,
    scale_collapsing,
    usual_rate,
)
from tinyllm.training.diagnosis.history import History, read_history
from tinyllm.training.presets import PRESETS

CERTAIN = (diverged, scale_collapsing)
"""What makes a run wrong even where its loss is in the band."""

OUTSIDE = 0.1
"""The share of a curve's places that may lie outside the band of a normal run: three seeds have not seen everything."""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """verdict: "normal", "normal so far", "nothing looks wrong", "not normal" or "too early to say". cause: its name,
    or None. lines: one to four. command: what to type after `tinyllm`, in words; empty where there is nothing to type.
    """

    verdict: str
    cause: str | None
    lines: tuple
    command: tuple


@dataclasses.dataclass(frozen=True)
class Place:
    """A mean loss of the run beside the band. curve: "training" or "held_out"."""

    curve: str
    step: int
    loss: float
    low: float
    high: float

    @property
    def name(self):
        return {"training": "training loss", "held_out": "held-out loss"}[self.curve]

    @property
    def side(self):
        """-1 below the band, 0 in it, 1 above."""
        return int(self.loss > self.high) - int(self.loss < self.low)


def diagnose(folder, bands=None, config=None):
    """The Diagnosis of a run folder: running, finished, diverged or taken up again.

    bands: those of this version unless given. config: of config.json, if that is read already. Raises UserError where
    the folder holds no run, or a damaged one.
    """
    run = Examined.of(folder, bands, config)
    if not len(run.history.loss) and not run.found(CERTAIN):
        line = "Too early to say: metrics.jsonl has no training step with a loss yet."
        return Diagnosis("too early to say", None, (line,), ("pretrain", "--run", str(folder), "--resume"))
    notes = run.found(NOTES)
    finding = next(iter(run.found(CERTAIN if run.inside else CAUSES)), None)
    if finding is None and run.outside:
        finding = next((note for note in notes if note.options), None) or other_than_usual(run)
    if finding:
        verdict = "not normal"
    elif run.inside:
        verdict = "normal" if run.history.finished else "normal so far"
    else:
        verdict = "nothing looks wrong" if len(run.history.loss) >= FEW_STEPS else "too early to say"
    return in_words(run, verdict, finding, [note for note in notes if note is not finding])


@dataclasses.dataclass(frozen=True)
class Examined:
    """A run beside its band. band: None where there is none for it. places: the run's losses where the band has any."""

    folder: Path
    history: History
    band: Band | None
    places: list

    @classmethod
    def of(cls, folder, bands=None, config=None):
        history = read_history(folder, config)
        band = find_band(history.config, bands)
        return cls(Path(folder), history, band, compared(history, band) if band else [])

    @property
    def strays(self):
        """The Places outside the band."""
        return [place for place in self.places if place.side]

    @property
    def outside(self):
        """Is it outside the band now, or was it for long?"""
        return any(p.side for p in latest(self.places)) or len(self.strays) > OUTSIDE * len(self.places)

    @property
    def inside(self):
        return bool(self.places) and not self.outside

    def found(self, causes):
        """The Findings of these causes."""
        return [finding for finding in (cause(self.history) for cause in causes) if finding]


# ------------------------------------------------------------------------------------------------ beside the band


def compared(history, band):
    """The Places of a run that the band knows, up to the run's step."""
    places = []
    means = trailing_means(history.loss)
    for step, low, high in band.within("training"):
        at = int(np.searchsorted(history.steps, step, side="right")) - 1
        if at >= 0 and history.step >= step:
            places.append(Place("training", int(step), float(means[at]), low, high))
    measured = {r["step"]: r["loss_nats"] for r in history.records if r.get("split") == "validation"}
    for step, low, high in band.within("held_out"):
        if measured.get(step) is not None:
            places.append(Place("held_out", int(step), measured[step], low, high))
    return places


def latest(places):
    """The last Place of each curve."""
    return list({place.curve: place for place in places}.values())


def other_than_usual(run):
    """The Finding of a run that is outside its band, and nothing shows why."""
    last, changed = run.strays[-1], changes(run.history)
    where = f"At step {last.step:,} {last.name} was {last.loss:.3f}, usual are {last.low:.3f} to {last.high:.3f}"
    name = "above the band" if last.side > 0 else "below the band"
    own, usual = run.history.rate, usual_rate(run.history)
    if last.side > 0 and usual and not SMALLER_RATE * usual <= own <= 2 * usual:
        cause = "learning rate too large" if own > usual else "learning rate too small"
        why = f"{where}; the learning rate {own:g} is {own / usual:,.3g} times the preset's."
        advice = f"the preset's: --training.learning-rate {usual:g}."
        return Finding(cause, why, advice, {"training.learning_rate": usual})
    if changed:
        return Finding(name, f"{where}; this run has {changed}.", "the preset as it is, to compare:", {})
    if last.side < 0:
        why = f"{where}, and every option is the preset's: held-out text may have come into the training text."
        return Finding(name, why, "to prepare the text anew, in a new run:", {})
    why = f"{where}, and every option is the preset's: the text's order, the machine or this version is another."
    return Finding(name, why, "another seed; if that is the same, `tinyllm doctor`:", {"seed": 1})


# -------------------------------------------------------------------------------------------------------- in words


def in_words(run, verdict, finding, notes):
    """The Diagnosis, with its lines."""
    changed = changes(run.history)
    also = [note.why for note in notes]
    if changed and run.band and not (finding and changed in finding.why):
        also.insert(0, f"This run has {changed}; the band is for the preset as it is.")
    advice, command = next_step(run, finding or next((note for note in notes if note.options), None))
    lines = [
        f"{verdict[0].upper()}{verdict[1:]}: {measured(run)}",
        f"Why: {finding.why if finding else no_cause(run, changed)}",
        f"Also: {' '.join(also)}",
        f"Try: {advice}",
    ]
    return Diagnosis(verdict, finding and finding.cause, tuple(line for line in lines if line != "Also: "), command)


def measured(run):
    """The numbers of the verdict: the last loss, and between which values it is usual."""
    history, last = run.history, run.history.last_evaluation
    if run.places:
        place = furthest(latest(run.places))
        return (
            f"{place.name} {place.loss:.3f} nats per token at step {place.step:,}; runs of {history.config['preset']} "
            f"on this text have {place.low:.3f} to {place.high:.3f} there."
        )
    if not len(history.loss):
        return f"no step of {history.planned:,} was finished."
    at = f"step {history.step:,}" + ("" if history.finished else f" of {history.planned:,}")
    held_out = f", held-out {last['loss_nats']:.3f} at step {last['step']:,}" if last else ""
    return (
        f"training loss {history.means[-1]:.2f} nats per token at {at}{held_out}; "
        f"guessing costs {history.guessing:.2f}."
    )


def furthest(places):
    """The Place that is furthest outside its band; if none is outside, that of held-out text."""
    return max(places, key=lambda p: (max(p.low - p.loss, p.loss - p.high, 0.0), p.curve == "held_out"))


def no_cause(run, changed):
    """What speaks for a run in which nothing is wrong."""
    history = run.history
    if run.places:
        strays = f", all but {len(run.strays)}" if run.strays else ""
        return f"at {len(run.places)} places along the curve{strays} it lies where {len(run.band.seeds)} seeds did."
    known = f"counting tokens reaches {history.unigram:.2f}, " if history.unigram else ""
    way = "the loss was still falling" if still_falling(history) else "the loss has stopped falling"
    band = f"no band is known for {changed}" if changed else "no band is known for this preset and text"
    return f"{known}{way}; {band}."


def still_falling(history):
    """Is there more to gain from more steps: training loss falls, and held-out loss is at its lowest?"""
    losses = history.held_out[1]
    return len(history.loss) > 10 and falling(history) and (not len(losses) or losses[-1] == losses.min())


def changes(history, most=3):
    """`learning_rate 0.03 (preset 0.003), batch_size 8 (preset 16) and 2 more changes`; empty where there are none."""
    model, training = changed_options(history.config)
    changed = [f"{name} {value} (preset {usual})" for name, (usual, value) in (training | model).items()]
    more = len(changed) - most
    return ", ".join(changed[:most]) + (f" and {more} more changes" if more > 0 else "")


def next_step(run, finding):
    """(what to try, the command's words after `tinyllm`)."""
    history, resume = run.history, ("pretrain", "--run", str(run.folder), "--resume")
    if finding and finding.options is not None:
        as_preset = finding.cause in ("above the band", "below the band")
        return finding.advice, new_run(history, run.folder, finding.options, as_preset)
    if finding:
        return finding.advice, ()
    if not history.finished:
        return "nothing; if it was stopped, let it go on:", resume
    if still_falling(history):
        return "more steps, the loss was still falling:", (*resume, "--steps", str(2 * history.step))
    return "what it writes; for a lower loss a longer text and a larger model.", (
        "generate",
        "--model",
        str(run.folder),
    )


def new_run(history, folder, options, as_preset):
    """The words of `pretrain` that repeat this run with other options, in a folder of its own."""
    preset, corpus = history.config.get("preset"), history.part("corpus").get("name")
    if not (preset in PRESETS and corpus):
        return ()
    words = ["pretrain", preset, "--data", corpus, "--run", free_folder(folder)]
    for name, value in (({} if as_preset else own_options(history)) | options).items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not None:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return tuple(words)


def own_options(history):
    """dict option of `pretrain` -> value: what the run has otherwise than its preset, tokenizer and precision too."""
    model, training = changed_options(history.config)
    tokenizer, precision = history.part("tokenizer"), history.option("precision") or "fp32"
    kind = {"byte": "bytes"}.get(tokenizer.get("kind"), tokenizer.get("kind"))
    preset = PRESETS[history.config["preset"]]
    own = {} if kind in (None, preset.tokenizer) else {"tokenizer": kind}
    if kind in ("bpe", "wordpiece") and tokenizer["vocab_size"] != preset.vocab_size:
        own["vocab_size"] = tokenizer["vocab_size"]
    own |= {} if precision == "fp32" else {"precision": precision}
    own |= {f"model.{name}": value for name, (_, value) in model.items()}
    return own | {named(name): value for name, (_, value) in training.items()}


def named(option):
    """The option of `pretrain` for a field of the training config."""
    return option if option in ("steps", "seed", "precision") else f"training.{option}"


def free_folder(folder):
    """`FOLDER-2`, or the next number that is not there yet."""
    folder, number = Path(folder), 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return str(folder.with_name(f"{folder.name}-{number}"))
