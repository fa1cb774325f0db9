"""The report of a run: one HTML page without scripts or outside files, for a screen, a phone or paper."""

import json
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm.files import atomic_write, read_json
from tinyllm.training.diagnosis import diagnose
from tinyllm.training.inspection import RECOMPUTATION
from tinyllm.training.metrics import SAMPLES, comparable_loss, is_finite, read_all_metrics, read_metrics, told
from tinyllm.training.progress import printable
from tinyllm.training.report_curves import curves, finite
from tinyllm.training.report_page import PAGE, STYLE, escape
from tinyllm.training.report_spikes import spikes

BASELINES = {
    "unigram": ("Unigram", "how often each token occurs"),
    "lzma": ("LZMA", "a file compressor that has read the training text"),
    "trigram": ("Trigram", "how often three tokens follow each other"),
    "model": ("This model", ""),
}

UNITS = {"bits_per_byte": "bits per byte", "loss_nats": "nats per token"}

SAMPLE_CHARACTERS = 4000
"""A longer sample is cut in the report; `samples.jsonl` has all of it."""


def write_report(run_folder):
    """Write `report.html` into a run folder, atomically, and return its path.

    Needs `config.json`; says so where measurements, samples or the summary are missing. The curves need matplotlib
    (`pip install "tinyllm[plot]"`). A damaged file raises UserError naming it.
    """
    run = read_run(Path(run_folder))
    page = PAGE.substitute(
        title=f"{escape(run.preset)} on {escape(run.corpus)}",
        preset=escape(run.preset),
        corpus=escape(run.corpus),
        style=STYLE,
        notices="".join(f'<p class="notice">{notice}</p>' for notice in notices(run)),
        headline=headline(run),
        facts=facts(run),
        baselines=baselines(run),
        expectation=expectation(run) + diagnosis(run),
        curves=curves(run),
        spikes=spikes(run),
        samples=samples(run),
        originality=originality(run),
        commands=commands(run),
        provenance=provenance(run) + ranks(run) + recomputation(run),
        configuration=configuration(run.config),
    )
    path = Path(run_folder) / "report.html"
    with atomic_write(path, "w") as file:
        file.write(page)
    return path


@dataclass(frozen=True)
class Run:
    """What a run folder holds. train, validation: records of metrics.jsonl; samples: records of samples.jsonl.

    taken_back: steps that roll-backs took back. spikes: records of any kind that have one.
    """

    folder: Path
    config: dict
    train: list
    validation: list
    samples: list
    summary: dict
    recomputation: dict
    taken_back: list
    spikes: list

    def part(self, name):
        """One part of config.json; empty if it is missing."""
        return self.config.get(name) or {}

    @property
    def preset(self):
        return self.config.get("preset") or "A model without a preset"

    @property
    def corpus(self):
        return self.part("corpus").get("name") or "an unnamed corpus"

    @property
    def steps(self):
        """Optimizer steps taken, as far as they were recorded."""
        return max((record["step"] for record in self.train + self.validation), default=0)

    @property
    def seconds(self):
        """How long it was trained, evaluations and samples included; None if nothing was recorded."""
        return max((record["seconds"] for record in self.train + self.validation if "seconds" in record), default=None)

    @property
    def planned_steps(self):
        return self.part("training").get("steps")

    def held_out(self, unit):
        """The last measurement of held-out text in `unit` ("bits_per_byte" or "loss_nats"), or None."""
        measured = [record.get(unit) for record in self.validation]
        if unit == "bits_per_byte":
            measured.append(self.yardsticks.get("model"))
        return next(filter(is_finite, reversed(measured)), None)

    @property
    def best(self):
        """The evaluation with the lowest loss over the same windows, the first of several; None if there was none."""
        measured = [record for record in self.validation if is_finite(comparable_loss(record))]
        return min(measured, key=comparable_loss, default=None)

    @property
    def yardsticks(self):
        """Bits per byte by name, the model's own among them; empty if none were measured."""
        return self.summary.get("bits_per_byte") or {}


def read_run(folder):
    everything = read_all_metrics(folder)
    records, taken_back = told(everything)
    return Run(
        folder,
        read_json(folder / "config.json"),
        [record for record in records if record.get("split") == "train"],
        [record for record in records if record.get("split") == "validation"],
        read_metrics(folder, SAMPLES),
        *(read_json(path) if path.exists() else {} for path in (folder / "summary.json", folder / RECOMPUTATION)),
        [record for record in taken_back if record.get("split") in ("train", "roll-back")],
        [record for record in everything if "spike" in record],
    )


# ---------------------------------------------------------------------------------------------- what was reached


def notices(run):
    """What a reader must know before the numbers: nothing measured, not finished, not finite."""
    if not run.train and not run.validation:
        yield "Nothing has been measured yet: <code>metrics.jsonl</code> has no records."
    elif run.planned_steps and run.steps < run.planned_steps:
        yield f"The run is not finished: {run.steps:,} of {run.planned_steps:,} steps were taken."
    lost = [record["step"] for record in run.train + run.validation if record.get("not_finite")]
    if lost:
        at = f"at step {lost[0]:,}" if len(lost) == 1 else f"{len(lost):,} times, first at step {min(lost):,}"
        yield (
            f"A measurement was not a finite number {at}. Single overflows are normal in float16; otherwise "
            "lower the learning rate or lengthen its warm-up."
        )


def headline(run):
    value = run.held_out("bits_per_byte")
    if value is None:
        return '<p class="headline"><span>Held-out text has not been scored yet.</span></p>'
    return (
        f'<p class="headline"><strong>{value:.3f}</strong> <span>bits per byte of text it had never seen. '
        "Lower is better.</span></p>"
    )


def facts(run):
    """The run in a few figures, those that are known."""
    config, summary = run.config, run.summary
    corpus = run.part("corpus")
    speeds = finite(run.train, "tokens_per_second")[1]
    loss, best = run.held_out("loss_nats"), run.best
    known = {
        "Parameters": quantity(config.get("num_parameters")),
        "Steps": f"{run.steps:,}" + (f" of {run.planned_steps:,}" if run.planned_steps else ""),
        "Training text": megabytes(corpus.get("training_bytes")),
        "Held-out text": megabytes(corpus.get("validation_bytes")),
        "Held-out loss": loss and f"{loss:.3f} nats per token",
        "Best checkpoint": best and f"step {best['step']:,} ({comparable_loss(best):.3f} nats per token)",
        "Training time": duration(run.seconds),
        "Time in all": duration(summary.get("total_seconds")),
        "Speed": len(speeds) and f"{np.median(speeds):,.0f} tokens/s",
    }
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in known.items() if value)


def quantity(number):
    """803000 -> 0.80 million."""
    return number and (f"{number / 1e6:,.2f} million" if number >= 1e5 else f"{number:,}")


def megabytes(number):
    return number and (f"{number / 1e6:,.2f} MB" if number >= 1e4 else f"{number:,} bytes")


def duration(seconds):
    """623 -> 10 min 23 s, 8000 -> 2 h 13 min."""
    if not seconds or seconds < 60:
        return seconds and f"{seconds:.1f} s"
    if seconds < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def baselines(run):
    """The model beside what counting and compressing reach on the same text, as a table with bars."""
    values = {**run.yardsticks, "model": run.held_out("bits_per_byte")}
    values = {name: values[name] for name in BASELINES if is_finite(values.get(name))}
    if values.keys() <= {"model"}:
        return '<p class="missing">No yardsticks were measured: <code>summary.json</code> has none.</p>'
    rows = []
    for name in sorted(values, key=values.get, reverse=True):
        label, remark = BASELINES[name]
        mark = ' class="model"' if name == "model" else ""
        width = 100 * values[name] / max(values.values())
        rows.append(
            f'<tr{mark}><th scope="row">{label} <small>{remark}</small></th>'
            f'<td class="bar"><span style="width:{width:.1f}%"></span></td><td>{values[name]:.3f}</td></tr>'
        )
    return (
        '<table class="bars"><caption>Bits for each byte of the same held-out text</caption>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def expectation(run):
    """What this preset usually reaches, and whether this run did: as words, and as a mark on a scale."""
    expected = run.part("expected")
    if not expected:
        return '<p class="missing">No expected range is recorded for this preset and corpus.</p>'
    low, high, unit = expected["low"], expected["high"], expected["unit"]
    value = run.held_out(unit)
    lead = f"<p>Expected of this preset on this text: {low:.3f} to {high:.3f} {UNITS[unit]}. "
    if value is None:
        return lead + "This run has not been scored yet.</p>"
    if value < low:
        verdict = "<strong>better than that</strong>. Make sure that no held-out text is among the training text."
    elif value <= high:
        verdict = "<strong>within it</strong>."
    elif run.planned_steps and run.steps < run.planned_steps:
        verdict = "<strong>not there yet</strong>, with steps still to go."
    else:
        verdict = (
            "<strong>worse than that</strong>. Usual causes: fewer steps, a smaller batch or context, another learning "
            "rate, other text."
        )
    return f"{lead}This run reached {value:.3f}: {verdict}</p>{scale(low, high, value)}"


def diagnosis(run):
    """What `tinyllm why` says of the run, in one paragraph."""
    found = diagnose(run.folder, config=run.config)
    command = f" <code>tinyllm {escape(shlex.join(found.command))}</code>" if found.command else ""
    return f'<p class="remark">{escape(" ".join(found.lines))}{command}</p>'


def scale(low, high, value):
    margin = 0.6 * (max(high, value) - min(low, value)) or 1.0
    begin, end = min(low, value) - margin, max(high, value) + margin
    at, left, right = (100 * (x - begin) / (end - begin) for x in (value, low, high))
    return (
        f'<div class="scale" aria-hidden="true"><span class="range" style="left:{left:.1f}%;width:{right - left:.1f}%">'
        f'</span><span class="mark" style="left:{at:.1f}%"></span></div>'
    )


# --------------------------------------------------------------------------------------------------- the samples


def samples(run):
    """Each prompt's continuation before training beside the last one; those between are folded away."""
    if not run.samples:
        return '<p class="missing">No samples were written.</p>'
    repeats, history = Counter(), defaultdict(dict)  # a step's n-th sample of a prompt goes with the n-th of others
    for record in run.samples:
        step, prompt = record["step"], record.get("prompt", "")
        history[prompt, repeats[step, prompt]][step] = record.get("text", "")
        repeats[step, prompt] += 1
    return "".join(comparison(prompt, texts) for (prompt, _), texts in history.items())


def comparison(prompt, texts):
    first, *later = sorted(texts)
    between, ends = later[:-1], [first, *later[-1:]]
    shown = "".join(sample(prompt, texts[step], step) for step in ends)
    folded = "".join(sample(prompt, texts[step], step) for step in between)
    if folded:
        folded = f"<details><summary>{len(between)} in between</summary>{folded}</details>"
    return f'<div class="pair">{shown}</div>{folded}'


def sample(prompt, text, step):
    cut = "…" if len(text) > SAMPLE_CHARACTERS else ""
    label = "Before training" if step == 0 else f"After {step:,} steps"
    return (
        f'<figure class="sample"><figcaption>{label}</figcaption>'
        f'<pre dir="auto"><b>{escape(prompt)}</b>{escape(text[:SAMPLE_CHARACTERS])}{cut}</pre></figure>'
    )


def originality(run):
    """Are its words real, and are its sentences its own?"""
    known, copied = run.summary.get("known_words"), run.summary.get("longest_copy")
    parts = []
    if known and known["words"]:
        parts.append(f"Of the {known['words']:,} words in the samples, {known['share']:.1%} occur in the corpus.")
    if copied and copied["words"]:
        length = "one word" if copied["words"] == 1 else f"{copied['words']:,} words in a row"
        parts.append(f"The longest passage copied from the corpus: {length}, <q>{escape(copied['text'])}</q>.")
    elif copied:
        parts.append("No word of the samples was copied from the corpus.")
    return f"<p>{' '.join(parts)}</p>" if parts else ""


# ---------------------------------------------------------------------------------------- going on, and fine print


def commands(run):
    """What to type next."""
    folder = shlex.quote(str(run.folder))
    prompt = next((record["prompt"] for record in run.samples if record.get("prompt")), "Once")
    prompt = " ".join(printable(prompt).split())[:60]
    lines = []
    if run.steps:
        lines.append(("Write more text", f"tinyllm generate --model {folder} --prompt {shlex.quote(prompt)}"))
    if run.config.get("preset"):
        again = f"tinyllm pretrain --run {folder} --resume"
        if run.planned_steps and run.steps >= run.planned_steps:
            lines.append(("Train twice as long", f"{again} --steps {2 * run.planned_steps}"))
        else:
            lines.append(("Go on where it stopped", again))
    return "".join(f'<h3>{title}</h3><pre class="command">{escape(line)}</pre>' for title, line in lines)


def provenance(run):
    """The machine, the versions and the text, in one paragraph."""
    machine, corpus = run.part("machine"), run.part("corpus")
    names = {
        "platform": "",
        "threads": "threads: ",
        "python": "Python ",
        "numpy": "NumPy ",
        "blas": "",
        "tinyllm": "tinyllm ",
    }
    known = ", ".join(name + in_text(machine[key]) for key, name in names.items() if machine.get(key))
    made = f"Made on {escape(known)}. " if known else "The machine was not recorded. "
    if corpus.get("sha256"):
        made += f"From {escape(run.corpus)}, SHA-256 <code>{escape(corpus['sha256'])}</code>."
    else:
        made += "The text's hash was not recorded."
    return f'<p class="remark">{made}</p>'


def in_text(value):
    """Settings that the environment made (a dict of variables), or anything else, for a sentence."""
    return " ".join(f"{name}={set_to}" for name, set_to in value.items()) if isinstance(value, dict) else str(value)


KEPT = (
    "a copy of weights, gradients and the optimizer's state",
    "a part of the optimizer's state",
    "a part of gradients and of the optimizer's state",
    "a part of weights, gradients and the optimizer's state",
)
"""What each rank has, by stage of ZeRO."""


def ranks(run):
    """How many processes shared the work, what each of them kept, how much they sent and how long they waited."""
    number, stage = (run.part("parallel").get(name) for name in ("ranks", "zero"))
    if not number or number == 1:
        return ""
    said = f"Trained by {number:,} ranks, each with {KEPT[stage]} (stage {stage} of ZeRO)."
    told = [record for record in run.train if "waited_seconds" in record and is_finite(record.get("tokens_per_second"))]
    if told:
        tokens = run.part("training")["batch_size"] * run.part("model")["max_position_embeddings"]
        share = sum(r["waited_seconds"] for r in told) / sum(tokens / r["tokens_per_second"] for r in told)
        sent = megabytes(round(np.median([record["message_bytes"] for record in told])))
        said += f" Messages of a step come to {sent}; {share:.0%} of its time the first rank waited for the others."
    return f'<p class="remark">{said}</p>'


def recomputation(run):
    """What recomputing blocks saved and cost, as measured when the run began."""
    measured = run.recomputation
    if not measured:
        return ""
    blocks, of_blocks = measured["blocks"], measured["of_blocks"]
    kept, without = measured["kept_bytes"], measured["kept_bytes_without"]
    return (
        f'<p class="remark">Activations of {blocks} of {of_blocks} blocks were computed again in backward: '
        f"{megabytes(kept)} were kept for it instead of {megabytes(without)}, and loss and gradient took "
        f"{measured['time_ratio']:.2f} times as long as without.</p>"
    )


def configuration(config):
    """Everything in config.json, folded, one table for each of its parts."""
    parts = {"run": {name: value for name, value in config.items() if not isinstance(value, dict)}}
    parts |= {name: value for name, value in config.items() if isinstance(value, dict)}
    return "".join(
        f"<details><summary>{escape(name)}</summary><table>{rows(values)}</table></details>"
        for name, values in parts.items()
        if values
    )


def rows(values):
    return "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(as_json(value))}</td></tr>'
        for name, value in values.items()
    )


def as_json(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
