"""The curves of a report: loss, learning rate, gradient norm and speed, drawn by matplotlib as inline SVG."""

import io
import re
import shlex
from dataclasses import dataclass
from math import log

import numpy as np

from tinyllm.training.metrics import is_finite
from tinyllm.training.report_page import escape
from tinyllm.training.spikes import FLOORS


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
        lines = {"training": finite(run.train, chart.field)}
        if chart.field == "loss_nats":  # the speed of evaluations is another thing than that of training
            lines["held out"] = finite(run.validation, chart.field)
        lines = {name: line for name, line in lines.items() if len(line[0]) > 1}
        if lines:
            watched = chart.field in FLOORS
            lines |= taken_back(run, chart.field) if watched else {}
            spikes = [record["step"] for record in run.spikes] if watched else []
            picture = draw(chart, lines, spikes)
            figures.append(f"<figure>{picture}<figcaption><b>{chart.title}</b> {chart.reading}</figcaption></figure>")
    if not figures:
        return '<p class="missing">Too few measurements for curves.</p>'
    remark = "Lines of training are running means; the shade spans the lowest and the highest batch."
    return f'<div class="figures">{"".join(figures)}</div><p class="remark">{remark}</p>'


def taken_back(run, field):
    """{"taken back": (steps, values)}, with NaN between what different roll-backs took back; {} without any."""
    steps, values = finite(run.taken_back, field)
    if len(steps) < 2:
        return {}
    breaks = np.flatnonzero(np.diff(steps) != 1) + 1
    return {"taken back": (np.insert(steps, breaks, steps[breaks]), np.insert(values, breaks, np.nan))}


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


def draw(chart, lines, spikes=()):
    """The chart as an inline SVG. lines: name -> (steps, values), "training", "held out" or "taken back"; spikes: steps
    to mark."""
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
        if "taken back" in lines:
            axes.plot(*lines["taken back"], color="#000002", linewidth=0.9, linestyle="--", label="taken back")
        if len(spikes):
            above = axes.get_xaxis_transform()  # at the upper edge, whatever the value: it may be no number
            at = np.ones(len(spikes))
            axes.plot(spikes, at, "v", transform=above, color="#000005", markersize=5, clip_on=False, label="spike")
        values = np.concatenate([values for _, values in lines.values()])
        if np.nanmin(values) > 0 and np.nanmax(values) > 50 * np.nanmin(values) and chart.smooth:
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.set(xlabel="step", ylabel=chart.unit)
        if len(lines) > 1 or len(spikes):
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
        f"lowest {np.nanmin(values):,.4g}, highest {np.nanmax(values):,.4g}"
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
