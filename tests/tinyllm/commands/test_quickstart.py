"""`tinyllm quickstart`: any text of the reader's own, interrupted, repeated, and the prompt at its end."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import time

import pytest

from tinyllm.commands import quickstart
from tinyllm.commands.main import main
from tinyllm.commands.quickstart import folder_for, name_in, tokenizer_for
from tinyllm.data.corpora import Corpus
from tinyllm.training.presets import PRESETS

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal and signals")
TINY = """
import dataclasses
from tinyllm.commands import quickstart
from tinyllm.training.presets import PRESETS
model = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32)
preset = PRESETS["quickstart"]
training = dataclasses.replace(preset.training, steps=3, batch_size=2, sample_tokens=5, warmup_steps=1)
PRESETS["quickstart"] = dataclasses.replace(preset, model=model, vocab_size=280, training=training)
quickstart.SAMPLE_TOKENS = 12
"""
MANUAL = """
import tinyllm.data
from tinyllm.data.corpora import Corpus
pages = [f"help(thing{i})\\n\\nReturn thing number {i}, or None where there is no such thing." for i in range(60)]
tinyllm.data.load_corpus = lambda name, progress=None: Corpus.of("python-reference", pages)
"""
SLOW_STEPS = """
import time
from tinyllm.data import RandomBatches
following = RandomBatches.__next__
RandomBatches.__next__ = lambda batches: (time.sleep(0.3), following(batches))[1]
"""
SLOW_WRITING = """
import time
from tinyllm.generation import decoding
following = decoding.next_logits
decoding.next_logits = lambda model, texts, cache: (
    time.sleep(0.1 * (len(texts) == 1)), following(model, texts, cache)
)[1]
"""


@pytest.fixture
def tiny(monkeypatch):
    """The quickstart preset at a size for tests, in this process."""
    monkeypatch.setitem(PRESETS, "quickstart", PRESETS["quickstart"])
    monkeypatch.setattr(quickstart, "SAMPLE_TOKENS", 12)
    exec(TINY, {})


@pytest.fixture
def letters(here):
    """A folder of texts whose name has a space and letters beyond ASCII."""
    folder = here / "Größere Briefe"
    folder.mkdir()
    for i in range(12):
        text = f"Letter {i}. Dear friend, the sea was calm today, and we saw {i} ships. Yours ever, Ada. "
        (folder / f"{i}.txt").write_text(text * 2, encoding="utf-8")
    return folder


def test_own_texts_from_training_to_the_next_three_commands(letters, tiny, capsys, contents):
    assert main(["quickstart", "--data", letters.name]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    lines = printed.out.splitlines()
    assert lines[0].startswith("Größere Briefe: 12 documents, 2,024 bytes, sha256 ")
    assert "Ctrl-C saves and stops." in lines[1]
    table = lines.index("Held-out text, bits per byte (fewer is better):")
    values = [float(line.split()[-1]) for line in lines[table + 1 : table + 5]]
    assert values == sorted(values, reverse=True)
    assert any(line.startswith("  this model") for line in lines[table + 1 : table + 5])
    assert "whole words in 20 samples" in printed.out
    assert printed.out.count("-" * 72) == quickstart.SHOWN + 1
    *_, three, generate, again, doctor = lines
    assert three == "Three things to try next:"
    assert generate.endswith("tinyllm generate --model 'runs/quickstart-Größere-Briefe' --prompt 'Letter 0.' --seed 1")
    assert again.endswith("tinyllm quickstart")
    assert doctor.endswith("tinyllm doctor")
    run = letters.parent / "runs" / "quickstart-Größere-Briefe"
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["bits_per_byte"]) == {"unigram", "trigram", "lzma", "model"}
    assert 0 <= summary["training_seconds"] <= summary["total_seconds"]
    assert (run / "report.html").exists()
    before = contents(run)
    assert main(["quickstart", "--data", letters.name]) == 0
    second = capsys.readouterr().out
    assert second.startswith(f"{os.path.join('runs', 'quickstart-Größere-Briefe')} is trained already; to train again")
    assert second.splitlines()[-4:] == lines[-4:]
    assert second.count("-" * 72) == quickstart.SHOWN + 1
    assert contents(run) == before


def test_the_manual_is_the_text_without_data(here, tiny, capsys, monkeypatch):
    exec(MANUAL.replace("tinyllm.data.load_corpus = ", "load_corpus = "), space := {})
    monkeypatch.setattr("tinyllm.data.load_corpus", space["load_corpus"])
    assert main(["quickstart"]) == 0
    printed = capsys.readouterr().out
    assert "step 0  sample:\n    help(dragon)\n" in printed
    assert f"{'-' * 72}\nhelp(dragon)\n\n" in printed
    assert printed.splitlines()[-3].endswith("generate --model runs/quickstart --prompt 'help(cloud)' --seed 1")
    assert printed.splitlines()[-2].endswith("tinyllm quickstart --data PATH_TO_YOUR_TEXT")
    assert main(["quickstart", "--data", "python-reference"]) == 0
    assert "runs/quickstart is trained already" in capsys.readouterr().out.replace("\\", "/")


def words(number, seed=0):
    """A text of that many made-up words out of a tenth as many."""
    rng = random.Random(seed)
    known = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(number // 10)]
    return " ".join(rng.choices(known, k=number))


@pytest.mark.parametrize(
    ("text", "vocab_size"),
    [
        (words(1_000), 257),
        (words(12_000), 512),
        (words(90_000), 2048),
        ("again and again, " * 4_000, 257),
        (words(10_000)[:3_000] * 200, 512),
    ],
    ids=["little", "some", "much", "some of the same", "much of the same"],
)
def test_the_vocabulary_is_one_that_the_text_supports(text, vocab_size):
    corpus = Corpus.of("text", [text])
    assert tokenizer_for(corpus).vocab_size == vocab_size


def test_one_document_is_never_asked_for_its_end(here, tiny, capsys, monkeypatch):
    """Its end never came in training, so samples begin with a line, not with an id that means nothing."""
    from tinyllm import generation

    starts, full = [], generation.generate
    monkeypatch.setattr(
        generation, "generate", lambda model, ids, **options: starts.extend(ids) or full(model, ids, **options)
    )
    assert main(["quickstart", "--data", "text.txt"]) == 0
    assert starts
    assert all(ids == [10] for ids in starts)


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (["Too little."], "the text has 9 tokens, and a context of 32 needs at least 33; give more text"),
        (["The same.", "The same."], "all 2 documents of texts are equal: none can be held out"),
        ([" ", "\n"], "the corpus texts is empty: there is no text in it"),
        (["a" * 30, "b"], "the text has "),
    ],
)
def test_too_little_text_is_one_line_and_blocks_nothing(here, tiny, refused, texts, line):
    (here / "texts").mkdir()
    (here / "runs").mkdir()
    for i, text in enumerate(texts):
        (here / "texts" / f"{i}.txt").write_text(text)
    refused(["quickstart", "--data", "texts"], line)
    (here / "texts" / "more.txt").write_text("Now there is enough to learn something from it. " * 5)
    (here / "texts" / "most.txt").write_text("And even more than enough, to be on the safe side. " * 5)
    assert main(["quickstart", "--data", "texts"]) == 0


def test_another_text_or_seed_in_the_same_folder_is_refused(letters, tiny, refused):
    assert main(["quickstart", "--data", letters.name, "--run", "run"]) == 0
    refused(["quickstart", "--data", "text.txt", "--run", "run"], "run holds a run on another text; choose another")
    refused(["quickstart", "--data", letters.name, "--run", "run", "--seed", "3"], "run holds a run with seed 0; cho")
    (letters / "new.txt").write_text("A new letter.")
    refused(["quickstart", "--data", letters.name, "--run", "run"], "run holds a run on another text; choose another")
    refused(["quickstart", "--data", letters.name, "--run", "text.txt"], "text.txt is a file; a run needs a folder")


@POSIX
def test_ctrl_c_and_the_same_command_goes_on(letters, tiny, start, capsys):
    through = ["quickstart", "--data", letters.name, "--run", "through"]
    assert main(through) == 0
    process = start(["quickstart", "--data", letters.name], TINY + SLOW_STEPS)
    metrics = letters.parent / "runs" / "quickstart-Größere-Briefe" / "metrics.jsonl"
    end = time.monotonic() + 60
    while not (metrics.exists() and b'"train"' in metrics.read_bytes()) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "Saved at step " in out
    assert out.splitlines()[-1].endswith("tinyllm quickstart --data 'Größere Briefe'")
    capsys.readouterr()
    assert main(["quickstart", "--data", letters.name]) == 0
    assert "Going on at step " in capsys.readouterr().out
    sets = [
        [(record["split"], record["step"], record["loss_nats"]) for record in map(json.loads, path.open())]
        for path in (metrics, letters.parent / "through" / "metrics.jsonl")
    ]
    assert sets[0] == sets[1]


def test_ctrl_c_after_the_training_loses_no_training_time(letters, tiny, monkeypatch):
    def interrupted(*parts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quickstart, "yardsticks", interrupted)
        assert main(["quickstart", "--data", letters.name, "--run", "run"]) == 130
    metrics = letters.parent / "run" / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    long_ago = [json.dumps(record | {"seconds": record["seconds"] + 1000}) + "\n" for record in records]
    metrics.write_text("".join(long_ago))
    assert main(["quickstart", "--data", letters.name, "--run", "run"]) == 0
    summary = json.loads((letters.parent / "run" / "summary.json").read_text())
    assert summary["total_seconds"] >= summary["training_seconds"] >= 1000


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("", "quickstart"),
        ("~/letters", "quickstart-letters"),
        ("a b/c d.txt", "quickstart-c-d.txt"),
        ("books/*.txt", "quickstart-txt"),
        ("Größe", "quickstart-Größe"),
        ("..", "quickstart-text"),
        ("/", "quickstart-text"),
    ],
)
def test_each_text_has_a_folder_of_its_own(data, folder):
    assert folder_for(data).as_posix() == f"runs/{folder}"


def test_this_folder_is_named_as_it_is(here):
    assert folder_for(".").name == "quickstart-a-place"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("dragon", "dragon"),
        ("help(dragon)", "dragon"),
        ("help(dragon", "dragon"),
        ("help ( 'os.dream' )", "os.dream"),
        ('help("dragon")', "dragon"),
        ("dragon()", "dragon"),
        ("help(os.path.join())", "os.path.join"),
        ("helper", "helper"),
        ("a teapot", "a teapot"),
    ],
)
def test_a_name_may_be_typed_in_many_ways(asked, name):
    assert name_in(asked) == name


class Terminal:
    """A process at a pseudo-terminal: type into it, wait for what it shows."""

    def __init__(self, start, words, code, environment):
        import pty

        self.master, slave = pty.openpty()
        terminal = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"  # so that ^C becomes a signal
        # A job in the background ignores that signal, and so do the processes it starts, these tests among them.
        terminal += "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        streams = {"stdin": slave, "stdout": slave, "stderr": subprocess.STDOUT, "start_new_session": True}
        self.process = start(words, terminal + TINY + code, **streams, env=os.environ | environment)
        os.close(slave)
        self.shown = ""

    def type(self, text):
        # A signal between Python's check for signals and its wait for a line is only seen after the line: nobody types
        # that fast after a prompt, and neither do we.
        time.sleep(0.3)
        os.write(self.master, text.encode())

    def wait_for(self, text, seconds=60):
        """What was shown up to and with `text`; it is taken away."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 4096).decode(errors="replace").replace("\r\n", "\n")
                except OSError:  # Linux says so when the process has closed its end
                    raise AssertionError(f"it ended, having shown {self.shown!r}") from None
        before, self.shown = self.shown.split(text, 1)
        return before + text

    def ends(self, seconds=60):
        """The exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it waits for something, having shown {self.shown!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # Linux says so when the process has closed its end
                    self.shown += os.read(self.master, 4096).decode(errors="replace")
        os.close(self.master)
        return self.process.returncode


@pytest.fixture
def terminal(start):
    """Call it with words, Python to run first and environment variables: a Terminal."""
    open_terminals = []

    def launch(words, code="", **environment):
        open_terminals.append(Terminal(start, words, code, environment))
        return open_terminals[-1]

    yield launch
    for terminal in open_terminals:
        terminal.process.kill()


@POSIX
@pytest.mark.parametrize("ending", ["\n", "\x04", "\x03"], ids=["empty line", "Ctrl-D", "Ctrl-C"])
def test_at_a_terminal_it_asks_for_names(terminal, ending):
    asking = terminal(["quickstart"], MANUAL, TERM="xterm", PYTHONUTF8="1")
    shown = asking.wait_for("help(…)> ")
    assert "Type any name and read its page. Ctrl-C stops the writing, an empty line ends." in shown
    asking.type("dragon\n")
    assert "\nhelp(dragon)\n\n" in asking.wait_for("\nhelp(…)> ")
    asking.type("help(cloud)\n")
    assert "\nhelp(cloud)\n\n" in asking.wait_for("\nhelp(…)> ")
    asking.type(ending)
    assert asking.ends() == 0


@POSIX
def test_ctrl_c_stops_a_page_and_asks_again(terminal):
    asking = terminal(["quickstart"], MANUAL + SLOW_WRITING, TERM="dumb", PYTHONUTF8="1")
    asking.wait_for("help(…)> ")
    asking.type("dragon\n")
    asking.wait_for("\nhelp(dragon)\n\n")
    asking.type("\x03")
    asking.wait_for("\nhelp(…)> ", seconds=10)
    asking.type("\n")
    assert asking.ends() == 0


@POSIX
def test_own_text_is_gone_on_with_at_a_terminal_of_ascii(here, terminal):
    """And what was typed is no UTF-8: one line, and it asks again."""
    asking = terminal(["quickstart", "--data", "text.txt"], TERM="dumb", PYTHONIOENCODING="ascii")
    shown = asking.wait_for("\n> ")
    assert "Begin a text, and the model goes on." in shown
    asking.type("The old\n")
    assert "\nThe old" in asking.wait_for("\n> ")
    os.write(asking.master, b"caf\xe9\n")
    assert "This console sent what is no ascii text; type something else." in asking.wait_for("\n> ")
    asking.type("\x04")
    assert asking.ends() == 0


@POSIX
def test_no_prompt_where_none_is_wanted(terminal):
    asking = terminal(["quickstart", "--data", "text.txt", "--no-prompt"], TERM="dumb")
    asking.wait_for("tinyllm doctor")
    assert asking.ends() == 0
