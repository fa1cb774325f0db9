"""The report of a run: one HTML page without scripts or outside files, for a screen, a phone or paper."""

import html
import io
import json
import re
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import log
from pathlib import Path
from string import Template

import numpy as np

from tinyllm.files import atomic_write, read_json
from tinyllm.training.metrics import SAMPLES, is_finite, read_metrics
from tinyllm.training.progress import printable

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
        expectation=expectation(run),
        curves=curves(run),
        samples=samples(run),
        originality=originality(run),
        commands=commands(run),
        provenance=provenance(run),
        configuration=configuration(run.config),
    )
    path = Path(run_folder) / "report.html"
    with atomic_write(path, "w") as file:
        file.write(page)
    return path


@dataclass(frozen=True)
class Run:
    """What a run folder holds. train, validation: records of metrics.jsonl; samples: records of samples.jsonl."""

    folder: Path
    config: dict
    train: list
    validation: list
    samples: list
    summary: dict

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
    def planned_steps(self):
        return self.part("training").get("steps")

    def held_out(self, unit):
        """The last measurement of held-out text in `unit` ("bits_per_byte" or "loss_nats"), or None."""
        measured = [record.get(unit) for record in self.validation]
        if unit == "bits_per_byte":
            measured.append(self.yardsticks.get("model"))
        return next(filter(is_finite, reversed(measured)), None)

    @property
    def yardsticks(self):
        """Bits per byte by name, the model's own among them; empty if none were measured."""
        return self.summary.get("bits_per_byte") or {}


def read_run(folder):
    records = read_metrics(folder)
    summary = folder / "summary.json"
    return Run(
        folder,
        read_json(folder / "config.json"),
        [record for record in records if record.get("split") == "train"],
        [record for record in records if record.get("split") == "validation"],
        read_metrics(folder, SAMPLES),
        read_json(summary) if summary.exists() else {},
    )


def escape(value):
    """Any text as it may stand in the page: a model or a corpus can write anything."""
    return html.escape(printable(str(value)))


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
    loss = run.held_out("loss_nats")
    known = {
        "Parameters": quantity(config.get("num_parameters")),
        "Steps": f"{run.steps:,}" + (f" of {run.planned_steps:,}" if run.planned_steps else ""),
        "Training text": megabytes(corpus.get("training_bytes")),
        "Held-out text": megabytes(corpus.get("validation_bytes")),
        "Held-out loss": loss and f"{loss:.3f} nats per token",
        "Training time": duration(summary.get("training_seconds")),
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
    expected = run.summary.get("expected")
    if not expected:
        return '<p class="missing">No expected range is recorded for this preset and corpus.</p>'
    low, high, unit = expected["low"], expected["high"], expected["unit"]
    value = run.held_out(unit)
    lead = (
        f"<p>Expected of this preset: {low:.3f} to {high:.3f} {UNITS[unit]}"
        f" <small>({escape(expected['source'])})</small>. "
    )
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


def scale(low, high, value):
    margin = 0.6 * (max(high, value) - min(low, value)) or 1.0
    begin, end = min(low, value) - margin, max(high, value) + margin
    at, left, right = (100 * (x - begin) / (end - begin) for x in (value, low, high))
    return (
        f'<div class="scale" aria-hidden="true"><span class="range" style="left:{left:.1f}%;width:{right - left:.1f}%">'
        f'</span><span class="mark" style="left:{at:.1f}%"></span></div>'
    )


# ---------------------------------------------------------------------------------------------------- the curves


@dataclass(frozen=True)
class Chart:
    """One picture of `field` over steps. unit: of the values; reading: one sentence on what to look for."""

    field: str
    title: str
    unit: str
    reading: str
    smooth: bool = True


def charts(run):
    vocab_size = run.part("tokenizer").get("vocab_size")
    guessing = f"Guessing costs ln({vocab_size:,}) = {log(vocab_size):.2f}: where a run begins. " if vocab_size else ""
    return [
        Chart("loss_nats", "Loss", "nats per token", f"{guessing}Held-out far above training is learning by heart."),
        Chart("learning_rate", "Learning rate", "", "As planned: up during warm-up, then down.", smooth=False),
        Chart("gradient_norm", "Gradient norm", "", "Before clipping. Spikes pass; a steady rise does not."),
        Chart("tokens_per_second", "Speed", "tokens per second", "A fall means that something else uses the machine."),
    ]


def curves(run):
    """All charts that have at least two points, or what to install to see them."""
    try:
        import matplotlib  # noqa: F401 (asked here whether it is installed; `draw` uses it)
    except ImportError:
        again = f"from tinyllm.training.report import write_report; write_report({str(run.folder)!r})"
        return (
            '<p class="missing">Curves need matplotlib. Install it and write the report again:</p>'
            f'<pre class="command">pip install "tinyllm[plot]"\npython -c {escape(shlex.quote(again))}</pre>'
        )
    figures = []
    for chart in charts(run):
        lines = {"training": finite(run.train, chart.field), "held out": finite(run.validation, chart.field)}
        lines = {name: line for name, line in lines.items() if len(line[0]) > 1}
        if lines:
            figures.append(
                f"<figure>{draw(chart, lines)}<figcaption><b>{chart.title}</b> {chart.reading}</figcaption></figure>"
            )
    if not figures:
        return '<p class="missing">Too few measurements for curves.</p>'
    remark = "Lines of training are running means; the shade spans the lowest and the highest batch."
    return f'<div class="figures">{"".join(figures)}</div><p class="remark">{remark}</p>'


def finite(records, field):
    """Steps and values of `field`, as arrays, where it was measured and finite."""
    points = [(record["step"], record[field]) for record in records if is_finite(record.get(field))]
    return np.array([step for step, _ in points]), np.array([value for _, value in points], dtype=float)


COLORS = {"#000001": "--ink", "#000002": "--muted", "#000003": "--rule", "#000004": "--accent", "#000005": "--second"}
"""Stand-ins that the SVG is drawn with; the page's own variables replace them, so that dark and print follow."""

MATPLOTLIB = {
    "svg.fonttype": "none",  # text stays text, in the page's typeface
    "svg.hashsalt": "tinyllm",  # the same run gives the same page
    "font.size": 10,
    "text.color": "#000002",
    "axes.edgecolor": "#000003",
    "axes.labelcolor": "#000002",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#000003",
    "grid.linewidth": 0.6,
    "xtick.color": "#000002",
    "ytick.color": "#000002",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
}


def draw(chart, lines):
    """The chart as an inline SVG. lines: name -> (steps, values), "training" or "held out"."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.style.context(["default", MATPLOTLIB]):  # whatever the user configured, and nothing stays changed
        figure = Figure(figsize=(5.2, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if "training" in lines:
            steps, low, high, mean = thinned(*lines["training"])
            if chart.smooth:
                axes.fill_between(steps, low, high, color="#000004", alpha=0.2, linewidth=0)
            axes.plot(steps, mean if chart.smooth else high, color="#000004", linewidth=1.6, label="training")
        if "held out" in lines:
            axes.plot(*lines["held out"], color="#000005", linewidth=1.6, marker="o", markersize=3, label="held out")
        values = np.concatenate([values for _, values in lines.values()])
        if values.min() > 0 and values.max() > 50 * values.min() and chart.smooth:
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel="step", ylabel=chart.unit)
        if len(lines) > 1:
            axes.legend()
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # else it names a time and a web address
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return inline(file.getvalue(), chart.field, description(chart, lines))


def thinned(steps, values, most=250):
    """Steps, lowest and highest value, and running mean, (n,) each, for n <= `most` stretches of a long curve."""
    begin = np.linspace(0, len(values), min(len(values), most), endpoint=False).astype(int)
    last = np.append(begin[1:], len(values)) - 1
    mean = running_mean(values, reach=len(values) // 100)
    return steps[last], np.minimum.reduceat(values, begin), np.maximum.reduceat(values, begin), mean[last]


def running_mean(values, reach):
    """Mean of each value and up to `reach` on either side, as many on one as on the other: a slope stays in place."""
    at = np.arange(len(values))
    reach = np.minimum(reach, np.minimum(at, at[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def description(chart, lines):
    """The chart in words, for those who cannot see it."""
    parts = [
        f"{name} from {values[0]:,.4g} at step {steps[0]:,} to {values[-1]:,.4g} at step {steps[-1]:,}, "
        f"lowest {values.min():,.4g}, highest {values.max():,.4g}"
        for name, (steps, values) in lines.items()
    ]
    unit = f" in {chart.unit}" if chart.unit else ""
    return f"{chart.title}{unit}: {'; '.join(parts)}."


def inline(svg, name, alt):
    """An SVG file as an element of the page: no prolog, names of its own, the page's colours, a description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg)
    for color, variable in COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


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
    preset = run.config.get("preset")
    if preset:
        again = f"tinyllm pretrain {shlex.quote(preset)} --data {shlex.quote(run.corpus)} --run {folder} --resume"
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
    known = ", ".join(name + str(machine[key]) for key, name in names.items() if machine.get(key))
    made = f"Made on {escape(known)}. " if known else "The machine was not recorded. "
    if corpus.get("sha256"):
        made += f"From {escape(run.corpus)}, SHA-256 <code>{escape(corpus['sha256'])}</code>."
    else:
        made += "The text's hash was not recorded."
    return f'<p class="remark">{made}</p>'


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


STYLE = """
:root {
  color-scheme: light;
  --paper: #fdfcf9; --ink: #24221e; --muted: #6a655b; --rule: #e3ded2; --panel: #f6f3ec;
  --accent: #23696c; --second: #b35c22; --quiet: #cbc4b4;
}
@media (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --paper: #191815; --ink: #e6e2d8; --muted: #a39d8f; --rule: #36332c; --panel: #22201c;
    --accent: #7cc0bd; --second: #e39a63; --quiet: #57523f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 54rem;
  background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif;
  text-wrap: pretty; -webkit-text-size-adjust: 100%;
}
h1, h2, h3, p, figure, dl, dd, pre, table { margin: 0; padding: 0; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 600; overflow-wrap: anywhere; }
h1 span { color: var(--muted); font-weight: 400; }
h2 { font-size: 1.3rem; font-weight: 600; margin-bottom: 1rem; }
h3 { font-size: 1rem; font-weight: 400; color: var(--muted); margin: 1rem 0 .35rem; }
section { margin-top: 3.25rem; }
small, figcaption, caption, dt, .notice, .missing, .remark, summary, table, dd, footer, .scale {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
small, figcaption, caption, dt, .missing, .remark, footer { color: var(--muted); font-size: .85rem; }
pre, code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; }
code { overflow-wrap: anywhere; }
q { font-style: italic; overflow-wrap: anywhere; }
.notice { margin-top: 1rem; padding: .6rem .9rem; border-left: 3px solid var(--second); background: var(--panel);
          font-size: .9rem; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 .9rem; margin: 1.75rem 0 1.5rem; }
.headline strong { font-size: 3.5rem; line-height: 1.1; font-weight: 600; color: var(--accent); }
.headline span { flex: 1 1 14rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1.5rem;
     padding: 1rem 0; border: solid var(--rule); border-width: 1px 0; }
dd { font-size: .95rem; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; margin-bottom: .5rem; }
th, td { padding: .35rem 0; text-align: left; vertical-align: top; font-weight: 400; overflow-wrap: anywhere; }
.bars th { width: 15rem; padding-right: 1rem; line-height: 1.3; }
.bars th small { display: block; font-size: .78rem; }
.bars td { vertical-align: middle; }
.bars td:last-child { width: 4rem; text-align: right; font-variant-numeric: tabular-nums; }
.bar span { display: block; height: .8rem; border-radius: 2px; background: var(--quiet); }
.model { font-weight: 600; }
.model th, .model td { font-weight: 600; }
.model .bar span { background: var(--accent); }
.bars + p { margin-top: 1.5rem; }
.scale { position: relative; height: .5rem; margin-top: .9rem; border-radius: 4px; background: var(--rule); }
.scale span { position: absolute; top: 0; height: 100%; }
.scale .range { background: var(--quiet); }
.scale .mark { top: -.3rem; width: 3px; height: 1.1rem; margin-left: -1px; border-radius: 2px;
               background: var(--accent); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2rem 1.75rem; }
.figures + .remark { margin-top: 1.25rem; }
.figures figcaption { margin-top: .25rem; }
.figures b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
        margin-top: 1rem; }
.sample pre { margin-top: .3rem; padding: .8rem 1rem; border-radius: 4px; background: var(--panel); }
.sample b { color: var(--accent); font-weight: 600; }
details { margin-top: .6rem; }
details .sample { margin-top: 1rem; }
summary::first-letter { text-transform: uppercase; }
summary { cursor: pointer; font-size: .9rem; color: var(--muted); }
details table { margin: .4rem 0 1rem; }
details th { width: 40%; padding-right: 1rem; }
details tr + tr > * { border-top: 1px solid var(--rule); }
.command { padding: .8rem 1rem; border-radius: 4px; background: var(--panel); }
section > p + .pair, section > .pair + p, section > details + p { margin-top: 1.25rem; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
@media (max-width: 34rem) {
  body { padding-top: 1.75rem; }
  .bars th { width: 9.5rem; }
  .bars td:last-child { width: 3.25rem; }
}
@media print {
  :root {
    color-scheme: light; font-size: 9.5pt;
    --paper: #fff; --ink: #000; --muted: #444; --rule: #ccc; --panel: #fff;
    --accent: #23696c; --second: #b35c22; --quiet: #bbb;
  }
  body { max-width: none; padding: 0; }
  section { margin-top: 2.25rem; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, table, tr, .pair { break-inside: avoid; }
  h2, summary { break-after: avoid; }
  .sample pre, .command { border: 1px solid var(--rule); }
  .bar span, .scale, .scale span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$preset <span>on $corpus</span></h1>
$notices
$headline
<dl>$facts</dl>
</header>

<main>
<section>
<h2>How good is that?</h2>
$baselines
$expectation
</section>

<section>
<h2>How it learned</h2>
$curves
</section>

<section>
<h2>What it writes</h2>
$samples
$originality
</section>

<section>
<h2>Going on</h2>
$commands
</section>

<section>
<h2>How it was made</h2>
$provenance
$configuration
</section>
</main>

<footer>Written by tinyllm. This page needs no other file and no network.</footer>
</body>
</html>
""")
