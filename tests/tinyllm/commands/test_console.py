"""Output survives every console."""

import io
import sys

import pytest

from tinyllm.commands.console import plain, prepare_streams, print_table, progress_bar


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


def test_a_progress_bar_is_silent_where_no_terminal_is(capsys):
    with progress_bar("learning", "merges") as report:
        report(1, 2)
        report(2, None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("rich", [True, False])
def test_tables_are_aligned_with_and_without_rich(monkeypatch, capsys, rich):
    if not rich:
        for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
            monkeypatch.setitem(sys.modules, name, None)
    print_table([("a", "bbb", "[c]"), ("aaa", "b", "c d")])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a    bbb  [c]", "aaa  b    c d"]
