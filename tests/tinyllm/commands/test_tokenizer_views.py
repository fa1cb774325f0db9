"""`tinyllm tokenizer inspect` and `compare`: what they print of a tokenizer that is known."""

import itertools
import re

import pytest

from tinyllm.commands.main import main
from tinyllm.commands.tokenizer_views import first_bytes, measured, print_tokens, visible
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer

BYTES = ByteTokenizer()
TEXT = "the cat and the hat and the bat"


@pytest.fixture
def no_published(monkeypatch, tmp_path):
    """No vocabulary of others on this machine."""
    monkeypatch.delenv("TINYLLM_REFERENCE", raising=False)
    monkeypatch.setenv("TINYLLM_CACHE", str(tmp_path / "empty"))


def test_every_id_stands_below_its_piece(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    text = "a é\n\t猫 x" * 4
    ids = BYTES.encode(text)
    print_tokens(BYTES, ids)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 24
    pieces, numbers = " ".join(lines[::2]).split(), " ".join(lines[1::2]).split()
    assert numbers == list(map(str, ids))
    assert pieces == [visible(BYTES, token) for token in ids]
    assert pieces[:6] == ["a", "·", r"\xc3", r"\xa9", "↵", "→"]


def test_neighbours_have_different_colours_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_tokens(BYTES, BYTES.encode("abcdef"))
    pieces = capsys.readouterr().out.splitlines()[0]
    colours = re.findall(r"\x1b\[30;(\d+)m", pieces)
    assert len(colours) == 6
    assert all(one != other for one, other in itertools.pairwise(colours))


def test_special_tokens_and_control_characters_are_visible():
    assert visible(BYTES, 256) == "<|endoftext|>"
    assert visible(BYTES, 27) == r"\x1b"  # a text cannot command the terminal


def test_inspect_counts(tmp_path, capsys):
    BPETokenizer.train([TEXT], vocab_size=263).save(tmp_path)
    assert main(["tokenizer", "inspect", "--tokenizer", str(tmp_path), "the bat"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["the", "·", "b", "at"]
    assert out[-1] == "4 tokens, 7 bytes, 1.75 bytes a token"
    assert main(["tokenizer", "inspect", "--tokenizer", "bytes", ""]) == 0
    assert capsys.readouterr().out == "0 tokens, 0 bytes, 0.00 bytes a token\n"


def test_compare_prints_what_can_be_counted_by_hand(tmp_path, capsys, monkeypatch, no_published):
    monkeypatch.chdir(tmp_path)
    BPETokenizer.train([TEXT], vocab_size=263).save("own")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    assert main(["tokenizer", "compare", "own", "bytes", "--data", "text.txt"]) == 0
    *_, first, second, note = capsys.readouterr().out.splitlines()
    rows = [first.split(), second.split()]
    assert (rows[0][-1], note[:14]) == ("*", "* plain Python")
    ours = BPETokenizer.load("own").encode(TEXT)
    assert rows[0][:6] == ["own", str(len(ours)), f"{31 / len(ours):.3f}", "263", f"{len(set(ours)) / 263:.1%}", "yes"]
    assert rows[1][:6] == ["bytes", "31", "1.000", "257", f"{len(set(TEXT)) / 257:.1%}", "yes"]


def test_a_tokenizer_that_loses_something_is_found_out():
    class Lossy(CharacterTokenizer):
        def _encode_ordinary(self, text):
            return super()._encode_ordinary(text.lower())

    lossy = Lossy.train(["abc"])
    assert measured(lossy, ["abc"])["lossless"]
    assert not measured(lossy, ["abC"])["lossless"]


def test_long_texts_are_cut_at_whole_characters():
    assert first_bytes(["ab", "éé", "c"], 5) == ["ab", "é"]
    assert first_bytes(["ab", "c"], 5) == ["ab", "c"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inspect", "--tokenizer", "no-such-folder", "a"], "does not exist"),
        (["compare", "no-such-folder", "--data", __file__], "does not exist"),
        (["compare", "gpt2", "--data", __file__], "the vocabulary of gpt2 could not be downloaded (no network"),
        (["compare", "bytes", "--data", "shakespeer"], "did you mean shakespeare?"),
        (["compare", "--data", __file__], "there is nothing to compare; name folders"),
    ],
)
def test_one_line_for_a_mistake(capsys, monkeypatch, no_published, words, says):
    from tinyllm.data import named_texts

    def offline(*_, **__):
        raise named_texts.urllib.request.URLError("no network in tests")

    monkeypatch.setattr(named_texts.urllib.request, "urlopen", offline)
    assert main(["tokenizer", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
