"""What a person sees while a long job runs: a live line on a terminal, plain lines in a log, nothing in a library."""

import contextlib
import os
import sys
import time

from tinyllm.training.metrics import is_finite

LIVE_PER_SECOND = 8
"""How often, at most, the live line is drawn anew."""

LOG_SECONDS, LOG_SHARE, LOG_PATIENCE_SECONDS = 5, 0.01, 60
"""A plain line comes after 5 seconds if a hundredth of the job was done since the last, and after a minute anyway."""

SMOOTHING = 0.95
"""The weight of the past in the running mean of the loss: it looks back over about twenty updates."""


def training_display(output=None):
    """The display for `output` (sys.stdout unless given): live on a terminal with rich installed, else plain lines."""
    return TrainingDisplay(line_for(output or sys.stdout))


class Silent:
    """Shows nothing: the display for library use, and the list of what a display can be told."""

    def start(self, total_steps, done=0):
        """The run begins, or goes on after `done` of `total_steps` optimizer steps."""

    def update(self, step, loss_nats, tokens_per_second):
        """A step was taken. loss_nats: nats per token of its batch."""

    def validation(self, step, loss_nats, bits_per_byte=None):
        """Held-out text was scored. loss_nats: nats per token; bits_per_byte: of that text, if known."""

    def sample(self, step, prompt, text):
        """The model wrote `text` after `prompt`."""

    def note(self, text):
        """Anything else worth a line."""

    def close(self):
        """The run is over or was interrupted."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class TrainingDisplay(Silent):
    """Step, smoothed loss, last bits per byte, speed, elapsed time and time left; samples and scores above them."""

    def __init__(self, line):
        self.line = line
        self.loss_nats = RunningMean()
        self.bits_per_byte = None
        self.tokens_per_second = None

    def start(self, total_steps, done=0):
        self.line.start(self.measures, done, total_steps)

    def update(self, step, loss_nats, tokens_per_second):
        self.loss_nats.add(loss_nats)
        self.tokens_per_second = tokens_per_second
        self.line.update(step, self.line.total)

    def validation(self, step, loss_nats, bits_per_byte=None):
        self.bits_per_byte = bits_per_byte
        bits = "" if bits_per_byte is None else f", {bits_per_byte:.3f} bits per byte"
        self.line.say(f"step {step:,}  validation: loss {loss_nats:.3f} nats per token{bits}")

    def sample(self, step, prompt, text):
        self.line.say(f"step {step:,}  sample:\n" + indented(prompt + text))

    def note(self, text):
        self.line.say(text)

    def close(self):
        self.line.close()

    def measures(self):
        """What to show beside the bar, the most important first: on a narrow terminal the last ones go."""
        parts = [f"step {self.line.done:,}/{self.line.total:,}"]
        if self.loss_nats.last is not None:
            parts.append(f"loss {self.loss_nats.shown():.3f}")
        parts.append(self.line.times())
        if is_finite(self.bits_per_byte):
            parts.append(f"{self.bits_per_byte:.3f} bits/byte")
        if is_finite(self.tokens_per_second):
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        return parts


class RunningMean:
    """Exponential moving mean of what was finite; a single overflow must not hide the loss for good."""

    def __init__(self):
        self.sum = self.weight = 0.0
        self.last = None

    def add(self, value):
        self.last = float(value)
        if is_finite(self.last):
            self.sum = SMOOTHING * self.sum + (1 - SMOOTHING) * self.last
            self.weight = SMOOTHING * self.weight + (1 - SMOOTHING)

    def shown(self):
        """The mean, or the last value itself if that was NaN or infinite: the user should see it."""
        return self.sum / self.weight if is_finite(self.last) else self.last


@contextlib.contextmanager
def track(total, description, unit="", output=None):
    """Progress of any other long job: `with track(n, "encoding", "bytes") as progress: progress(done, total)`.

    total: in the same unit as `done`, None if unknown; each call may correct it. unit: what is counted ("merges");
    "bytes" are shown in MB. A job of less than half a second shows nothing.
    """
    line = line_for(output or sys.stdout)
    begin = time.monotonic()
    started = False
    name = {"bytes": " MB", "": ""}.get(unit, f" {unit}")

    def measures():
        whole = f"/{number(line.total, unit)}" if line.total else ""
        rate = line.done / (time.monotonic() - begin)
        return [description, number(line.done, unit) + whole + name, line.times(), f"{number(rate, unit)}{name}/s"]

    def progress(done, total=total):
        nonlocal started
        if not started and time.monotonic() - begin > 0.5:
            line.start(measures, done, total)
            started = True
        elif started:
            line.update(done, total)

    try:
        yield progress
    finally:
        line.close()


def line_for(output):
    """A LiveLine where `output` is a terminal that can redraw a line and rich is installed, else a LogLine."""
    if not output.isatty() or os.environ.get("TERM") == "dumb":
        return LogLine(output)
    try:
        return LiveLine(output)
    except ImportError:
        return LogLine(output)


class LogLine:
    """Progress as plain lines, for files, pipes, notebooks and terminals without rich."""

    def __init__(self, output):
        self.output = output
        self.done, self.total, self.measures = 0, None, None

    def start(self, measures, done, total):
        """measures: called when a line is due, returns its parts as a list of strings."""
        self.measures, self.done, self.total = measures, done, total
        self.begin = self.last_time = time.monotonic()
        self.first_done = self.last_done = done

    def update(self, done, total):
        self.done, self.total = done, total
        if self.is_due(time.monotonic() - self.last_time):
            self.draw()

    def is_due(self, seconds):
        """True if, `seconds` after the last line, it is time for the next."""
        if self.done == self.total:
            return self.done != self.last_done
        enough = self.total and self.done - self.last_done >= LOG_SHARE * self.total
        return seconds >= (LOG_SECONDS if enough else LOG_PATIENCE_SECONDS)

    def draw(self):
        self.last_time, self.last_done = time.monotonic(), self.done
        percent = [f"{self.done / self.total:4.0%}"] if self.total else []
        self.say("  ".join(percent + self.measures()))

    def say(self, text):
        print(printable(text, self.output.encoding), file=self.output, flush=True)

    def times(self):
        """Elapsed time and, once it can be estimated, time left."""
        seconds = time.monotonic() - self.begin
        done = self.done - self.first_done
        if not self.total or done <= 0 or self.done >= self.total:
            return clock(seconds)
        return f"{clock(seconds)}, {clock(seconds * (self.total - self.done) / done)} left"

    def close(self):
        if self.measures and self.done != self.last_done:
            self.draw()
        self.measures = None


class LiveLine(LogLine):
    """Progress as one line that is drawn over and over at the foot of a terminal; everything else scrolls above it.

    rich draws it from a thread of its own, so the clock goes on during a long step and `update` only notes two numbers.
    """

    def __init__(self, output):
        from rich.console import Console

        super().__init__(output)
        self.console = Console(file=output, highlight=False)

    def start(self, measures, done, total):
        from rich.live import Live

        super().start(measures, done, total)
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=LIVE_PER_SECOND)
        self.live.start()

    def update(self, done, total):
        self.done, self.total = done, total

    def render(self):
        """A bar, and as many of the measures as the terminal is wide."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts = self.measures()
        while len(parts) > 1 and len("  ".join(parts)) > self.console.width - 12:
            parts.pop()
        row = Table.grid(expand=True, padding=(0, 2, 0, 0))
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        bar = ProgressBar(total=self.total, completed=self.done, pulse=not self.total)
        row.add_row(Text(printable("  ".join(parts), self.output.encoding)), bar)
        return row

    def say(self, text):
        self.console.print(printable(text, self.output.encoding), markup=False, highlight=False, emoji=False)

    def close(self):
        if self.measures:
            self.live.stop()  # draws a last time
        self.measures = None


def number(value, unit):
    return f"{value / 1e6:,.1f}" if unit == "bytes" else f"{value:,.0f}"


def clock(seconds):
    """75 -> 1:15, 4000 -> 1:06:40."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def indented(text):
    return "".join("    " + line for line in text.splitlines(keepends=True))


CONTROL_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
HARMFUL = [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)]
"""Terminal commands of Latin 1, marks that turn the direction of what follows, and halves of characters."""

PRINTABLE = CONTROL_PICTURES | dict.fromkeys(HARMFUL, 0xFFFD)


def printable(text, encoding="utf-8"):
    """`text` as it can be shown safely: a model may write escape sequences, and a terminal would obey them.

    Control characters become their pictures (U+2400 and on) and other harmful ones U+FFFD; what `encoding` lacks is
    written as an escape (\\u2019).
    """
    encoding = encoding or "utf-8"
    return text.translate(PRINTABLE).encode(encoding, "backslashreplace").decode(encoding)
