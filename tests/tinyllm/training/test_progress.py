import io
import math
import sys
import time

import pytest

from tinyllm.training import progress
from tinyllm.training.progress import LiveLine, LogLine, RunningMean, Silent, TrainingDisplay, clock, printable


class Output(io.StringIO):
    def __init__(self, encoding="utf-8", terminal=False):
        super().__init__()
        self.name, self.terminal = encoding, terminal

    encoding = property(lambda self: self.name)

    def isatty(self):
        return self.terminal


@pytest.fixture
def now(monkeypatch):
    """A clock that tests set by hand."""
    hand = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: hand[0])
    return hand


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Output(terminal=True)


def hide_rich(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"] + ["rich", "rich.console", "rich.live"]:
        monkeypatch.setitem(sys.modules, name, None)


def test_plain_lines_come_seldom_and_say_everything(now):
    output = Output()
    with progress.training_display(output) as display:
        display.start(200)
        for step in range(1, 101):
            now[0] += 0.5
            display.update(step, 3.0, 12345.6)
            if step == 50:
                display.validation(50, 2.9, 2.345)
    lines = output.getvalue().splitlines()
    assert lines[5] == "step 50  validation: loss 2.900 nats per token, 2.345 bits per byte"
    assert lines[-1] == " 50%  step 100/200  loss 3.000  0:50, 0:50 left  2.345 bits/byte  12,346 tokens/s"
    assert len(lines) == 11


def test_a_slow_log_still_gets_a_line_a_minute(now):
    output = Output()
    display = TrainingDisplay(LogLine(output))
    display.start(1_000_000)
    for step in range(1, 131):
        now[0] += 1
        display.update(step, 3.0, 1.0)
    assert len(output.getvalue().splitlines()) == 2


def test_a_resumed_run_estimates_from_its_own_steps(now):
    output = Output()
    with TrainingDisplay(LogLine(output)) as display:
        display.start(100, done=80)
        now[0] += 10
        display.update(90, 1.0, 5.0)
    assert "step 90/100" in output.getvalue()
    assert "0:10, 0:10 left" in output.getvalue()


def test_the_last_step_is_shown_once(now):
    output = Output()
    with TrainingDisplay(LogLine(output)) as display:
        display.start(2)
        display.update(1, 1.0, 5.0)
        display.update(2, 1.0, 5.0)
    assert [line[:13] for line in output.getvalue().splitlines()] == ["100%  step 2/"]


def test_nothing_is_measured_yet_or_is_not_finite(now):
    output = Output()
    with TrainingDisplay(LogLine(output)) as display:
        display.start(2)
        display.validation(0, math.nan, math.nan)
        display.update(2, math.nan, math.nan)
    assert output.getvalue().splitlines()[-1] == "100%  step 2/2  loss nan  0:00"


def test_an_overflow_is_shown_and_then_forgotten():
    mean = RunningMean()
    for value in (2.0, 4.0, math.inf):
        mean.add(value)
    assert mean.shown() == math.inf
    mean.add(3.0)
    assert mean.shown() == pytest.approx(3.0, abs=0.1)


def test_samples_cannot_command_the_terminal_nor_break_a_narrow_encoding():
    output = Output("ascii")
    TrainingDisplay(LogLine(output)).sample(7, "Once\n", "upon \x1b[2J\u202e\ud800 \u2019")
    assert output.getvalue() == "step 7  sample:\n    Once\n    upon \\u241b[2J\\ufffd\\ufffd \\u2019\n"
    assert printable("tab\tline\n\x00\x7f\x9b é") == "tab\tline\n␀␡\ufffd é"


def test_our_own_words_are_ascii(now):
    output = Output("ascii")
    with TrainingDisplay(LogLine(output)) as display:
        display.start(10)
        display.validation(1, 1.0, 2.0)
        display.update(10, 1.0, 1.0)
    assert "\\" not in output.getvalue()


def test_the_live_line_on_a_terminal(terminal):
    with progress.training_display(terminal) as display:
        assert isinstance(display.line, LiveLine)
        display.note("[bold]as it is[/bold] :smile:")
        display.start(200)
        display.update(50, 3.0, 12345.0)
        display.sample(50, "Once", " upon\x1b[2J")
        display.validation(50, 2.9, 2.345)
    written = terminal.getvalue()
    assert "[bold]as it is[/bold] :smile:" in written
    assert "    Once upon␛[2J" in written
    assert "step 50/200  loss 3.000  0:00, 0:00 left  2.345 bits/byte  12,345 tokens/s" in written
    assert "━" in written


def test_a_narrow_terminal_drops_the_least_important(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with progress.training_display(terminal) as display:
        display.start(200)
        display.update(50, 3.0, 12345.0)
    assert "loss 3.000" in terminal.getvalue()
    assert "tokens/s" not in terminal.getvalue()


def test_the_live_line_is_ascii_where_the_terminal_is(terminal):
    terminal.name = "ascii"
    with progress.training_display(terminal) as display:
        display.start(200)
        display.update(50, 3.0, 12345.0)
        display.sample(50, "", "\u2019")
    terminal.getvalue().encode("ascii")


@pytest.mark.parametrize("missing", ["rich", "redrawing"])
def test_a_terminal_that_cannot_be_redrawn_gets_plain_lines(terminal, monkeypatch, missing):
    if missing == "rich":
        hide_rich(monkeypatch)
    else:
        monkeypatch.setenv("TERM", "dumb")
    assert type(progress.training_display(terminal).line) is LogLine


def test_an_interrupted_run_leaves_the_terminal_as_it_was(terminal):
    def interrupted():
        with progress.training_display(terminal) as display:
            display.start(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_silent_takes_everything_and_shows_nothing(capsys):
    with Silent() as display:
        display.start(10, done=3)
        display.update(4, 1.0, 2.0)
        display.validation(4, 1.0, 2.0)
        display.sample(4, "a", "b")
        display.note("c")
    assert capsys.readouterr().out == ""


def test_an_update_costs_next_to_nothing(terminal):
    for line in (LogLine(Output()), LiveLine(terminal)):
        with TrainingDisplay(line) as display:
            display.start(10**6)
            begin = time.perf_counter()
            for step in range(2000):
                display.update(step, 1.0, 2.0)
            assert (time.perf_counter() - begin) / 2000 < 100e-6


def test_track_counts_bytes_and_shows_nothing_for_a_short_job(now):
    output = Output()
    with progress.track(5_000_000, "encoding", "bytes", output) as report:
        for done in range(1, 6):
            now[0] += 4
            report(done * 1_000_000, 5_000_000)
    assert output.getvalue().splitlines() == [
        " 60%  encoding  3.0/5.0 MB  0:08, 0:08 left  0.2 MB/s",
        "100%  encoding  5.0/5.0 MB  0:16  0.2 MB/s",
    ]
    with progress.track(5, "quick", output=output) as report:
        report(5, 5)
    assert "quick" not in output.getvalue()


def test_track_without_a_known_total(now, terminal):
    output = Output()
    for out in (output, terminal):
        with progress.track(None, "[download]", "files", out) as report:
            for done in (1, 2, 3000):
                now[0] += 61
                report(done, None)
    assert output.getvalue().splitlines()[-1] == "[download]  3,000 files  2:02  16 files/s"
    assert "[download]  3,000 files" in terminal.getvalue()


def test_clock():
    assert [clock(seconds) for seconds in (0, 59.6, 75, 4000)] == ["0:00", "1:00", "1:15", "1:06:40"]
