"""The frame of the command line: finding commands, and one line for every mistake."""

import errno
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Literal

import pytest
from tyro.conf import Positional

from tinyllm.commands import main as frame
from tinyllm.commands.main import COMMANDS, main
from tinyllm.errors import UserError


@dataclass
class Size:
    hidden_size: int = 128
    """Width."""

    rate: float | None = None
    """Of learning."""


@dataclass
class Options:
    preset: Positional[str]
    """A positional argument."""

    steps: int
    """Required."""

    device: Literal["cpu", "cuda"] = "cpu"
    """A choice."""

    max_new_tokens: int | None = None
    """Optional."""

    resume: bool = False
    """A flag."""

    model: Size = field(default_factory=Size)


@pytest.fixture
def command(monkeypatch):
    """A command `probe` in place of the real ones: records its options, and raises what the test puts in `raises`."""
    probe = SimpleNamespace(options=None, raises=None, returns=None)

    def run(options: Options):
        """Probe the frame.

        Example:
            tinyllm probe small --steps 3
        """
        probe.options = options
        if probe.raises:
            raise probe.raises
        return probe.returns

    monkeypatch.setattr(frame, "COMMANDS", {"probe": "a probe"})
    monkeypatch.setattr(frame, "load", lambda name, arguments: SimpleNamespace(run=run))
    return probe


def test_help_lists_the_commands(capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.split("\n")
        assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert {"quickstart", "tokenizer", "pretrain", "generate", "doctor"} <= set(COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"tinyllm \d+\.\d+\.\d+\n", capsys.readouterr().out)


def pages():
    """Every command that this version has, each of a group's by itself."""
    present = [name for name in COMMANDS if importlib.util.find_spec(f"tinyllm.commands.{name}")]
    groups = {name: getattr(frame.load(name, []), "SUBCOMMANDS", None) for name in present}
    return [[name, *which] for name, group in groups.items() for which in ([[key] for key in group] if group else [[]])]


@pytest.mark.parametrize("words", pages(), ids=" ".join)
def test_every_command_has_help_with_an_example(words, capsys):
    assert main([*words, "--help"]) == 0
    printed = capsys.readouterr()
    assert f"Example:\n    tinyllm {' '.join(words)}" in printed.out
    assert not printed.err


def test_help_of_a_group_lists_its_commands(capsys):
    assert main(["tokenizer"]) == main(["tokenizer", "--help"]) == 0
    assert "  encode   turn text into token numbers\n" in capsys.readouterr().out


def test_options_reach_the_command(command):
    words = "probe small --steps 3 --device cuda --max-new-tokens 7 --resume --model.hidden-size 256 --model.rate 1e-3"
    assert main(words.split()) == 0
    assert command.options == Options("small", 3, "cuda", 7, True, Size(256, 1e-3))


def test_a_command_may_return_an_exit_code(command):
    command.returns = 1
    assert main(["probe", "small", "--steps", "3"]) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("prob", "there is no command prob; did you mean `tinyllm probe`?"),
        ("xyz", "there is no command xyz; there are: probe"),
        ("--verison", "there is no option --verison; did you mean `tinyllm --version`?"),
        ("probe small --steps 3 --devise cpu", "there is no option --devise; did you mean --device?"),
        ("probe small --steps 3 --model.rat=4", "there is no option --model.rat; did you mean --model.rate?"),
        ("probe small more --steps 3", "unexpected argument 'more'"),
        ("probe small --stepz 3", "there is no option --stepz; missing: --steps INT"),
        ("probe small", "missing: --steps INT"),
        ("probe", "missing: PRESET, --steps INT"),
        ("probe small --steps three", "--steps takes a whole number, not 'three'"),
        ("probe small --steps 3.5", "--steps takes a whole number, not '3.5'"),
        ("probe small --steps 3 --max-new-tokens None", "--max-new-tokens takes a whole number, not 'None'"),
        ("probe small --steps 3 --model.rate fast", "--model.rate takes a number, not 'fast'"),
        ("probe small --steps 3 --device tpu", "--device takes one of 'cpu', 'cuda', not 'tpu'"),
        ("probe small --steps", "--steps needs a value"),
    ],
)  # fmt: skip
def test_one_line_for_wrong_arguments(command, capsys, words, line):
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.removesuffix(" (see tinyllm probe --help)\n").removesuffix("\n") == f"tinyllm: {line}"
    assert command.options is None


@pytest.mark.parametrize("columns", ["20", "300"])
def test_one_line_whatever_the_width_of_the_terminal(command, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["probe", "small", "--steps", "3", "--devise", "cpu"]) == 2
    assert "there is no option --devise; did you mean --device?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("two\nlines"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left"), 2, "no space left; free some space and run it again"),
        (PermissionError(errno.EACCES, "Permission denied", "a.txt"), 2, "a.txt: permission denied"),
    ],
)  # fmt: skip
def test_one_line_for_what_goes_wrong_in_a_command(command, capsys, error, code, line):
    command.raises = error
    assert main(["probe", "small", "--steps", "3"]) == code
    assert capsys.readouterr().err == f"tinyllm: {line}\n"


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EBADF, "ours")])
def test_our_own_mistakes_keep_their_traceback(command, error):
    command.raises = error
    with pytest.raises(type(error), match="ours"):
        main(["probe", "small", "--steps", "3"])


@pytest.mark.parametrize("package", ["tyro", "rich"])
def test_missing_packages_are_named(capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["tokenizer", "train"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tinyllm: the command line needs {package}; run: ")
    assert error.endswith(f"-m pip install {package}\n")
    assert main(["--help"]) == 0


def test_a_command_that_this_version_lacks(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "levitate", "some day")
    assert main(["levitate"]) == 2
    assert "the command levitate is not in this version" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE and reports a closed pipe as EINVAL")
def test_a_reader_that_stops_early_is_no_error():
    """`tinyllm tokenizer encode ... | head -0`, with more output than a pipe holds."""
    code = (
        "import sys; from tinyllm.commands import main as frame\n"
        "frame.dispatch = lambda arguments: print('x' * 1_000_000)\n"
        "sys.exit(frame.main([]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
