"""The loss spikes of a run, as a table of its report: what happened when, and what was done about it."""

from tinyllm.training.report_page import escape
from tinyllm.training.spikes import described

MOST_ROWS = 20
"""A longer table is cut; `metrics.jsonl` has all of it."""


def spikes(run):
    """The table; nothing for a run without spikes."""
    if not run.spikes:
        return ""
    rows = "".join(row(record) for record in run.spikes[:MOST_ROWS])
    rest = len(run.spikes) - MOST_ROWS
    cut = f'<p class="remark">{rest:,} more are in <code>metrics.jsonl</code>.</p>' if rest > 0 else ""
    return (
        '<table class="spikes"><caption>Spikes of the loss or of the gradient norm, marked by triangles above</caption>'
        '<thead><tr><th scope="col">Step</th><th scope="col">What</th><th scope="col">Done about it</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{cut}"
    )


def row(record):
    what = escape(described(record["spike"]))
    if "first_nan" in record:
        what += f" <small>{escape(origin(record['first_nan']))}</small>"
    return f'<tr><th scope="row">{record["step"]:,}</th><td>{what}</td><td>{escape(done(record))}</td></tr>'


def origin(finding):
    """Where the first NaN came from. finding: the field "first_nan" of a record."""
    if "op" not in finding:
        return finding["cause"]
    layer = f" of {finding['layer']}" if finding["layer"] else ""
    return f"first in {finding['op']}{layer}, {finding['phase']}"


def done(record):
    """What was done about a spike."""
    if record["split"] == "roll-back":
        return f"back to step {record['to_step']:,}, on the data after it"
    if record["split"] == "diverged":
        return "the run stopped"
    if "skipped" in record:
        return f"skipped; {record['no_roll_back']}" if "no_roll_back" in record else "skipped"
    return "taken for a new level" if "new_level" in record["spike"] else "followed"
