"""Output survives every console."""

import io
import os
import shlex
import sys
from pathlib import Path

import pytest

from tinyllm.commands.console import command_line, plain, prepare_streams, print_table


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("ascii", "+-x caf? ?"), ("cp1252", "+-x caf\xe9 ?"), ("utf-8", "┌─× café 字")],
)
def test_any_character_can_be_printed(monkeypatch, encoding, printed):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    prepare_streams()
    print("┌─× café 字", end="", flush=True)
    assert raw.getvalue().decode(encoding).replace("\xd7", "x") in (printed, printed.replace("×", "x"))


def test_half_a_character_can_be_printed(monkeypatch):
    """A file name that is not UTF-8 reaches Python as a lone surrogate, which UTF-8 refuses."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    prepare_streams()
    print("\udcff", end="", flush=True)
    assert raw.getvalue() == b"?"


def test_a_long_run_of_odd_characters_keeps_its_length():
    error = UnicodeEncodeError("ascii", "a│字…b", 1, 4, "")
    assert plain(error) == ("|?.", 4)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A folder that is the current one, and in it an environment's `bin` with python and tinyllm."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "tinyllm", "tinyllm.exe"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return folder


@pytest.mark.skipif(os.name != "posix", reason="quotes of POSIX shells")
def test_a_command_can_be_typed_as_it_is_shown(environment, monkeypatch, tmp_path):
    words = ("generate", "--model", Path("a b"), "--prompt", "it's $5", "--seed", 1)
    shown = command_line(*words)
    assert shlex.split(shown) == ["my env/bin/tinyllm", *map(str, words)]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shlex.split(command_line("doctor")) == [str(environment / "tinyllm"), "doctor"]
    monkeypatch.setenv("PATH", str(environment))
    assert command_line("doctor") == "tinyllm doctor"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert command_line("doctor") == "tinyllm doctor"


@pytest.mark.parametrize("rich", [True, False])
def test_tables_are_aligned_with_and_without_rich(monkeypatch, capsys, rich):
    if not rich:
        for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
            monkeypatch.setitem(sys.modules, name, None)
    print_table([("a", "bbb", "[c]"), ("aaa", "b", "c d")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a    bbb  [c]", "aaa  b    c d"]
