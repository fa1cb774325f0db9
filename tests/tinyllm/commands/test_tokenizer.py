"""`tinyllm tokenizer`: there and back through the files it writes, and its refusals."""

import io
import sys
from pathlib import Path

import pytest

from tinyllm.commands.main import main
from tinyllm.data import load_corpus, streamed_text
from tinyllm.tokenizers import BPETokenizer, count_words, load_tokenizer, word_counting

TEXT = "She sells sea shells by the sea shore. " * 30


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "a text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text_file, *options):
    out = text_file.parent / "tokenizer"
    return main(["tokenizer", "train", "--data", str(text_file), "--out", str(out), *options]), str(out)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("--vocab-size", "270"), 270),
        (("--kind", "bytes"), 257),
        (("--kind", "character"), len(set(TEXT))),
        (("--kind", "wordpiece", "--vocab-size", "30"), 30),
    ],
    ids=["bpe", "bytes", "character", "wordpiece"],
)
def test_train_encode_decode(text_file, capsys, options, size):
    code, out = train(text_file, *options)
    assert code == 0
    assert f"{size} tokens" in capsys.readouterr().out
    assert load_tokenizer(out).vocab_size == size
    assert main(["tokenizer", "encode", "--tokenizer", out, "sea shells"]) == 0
    ids = capsys.readouterr().out.split()
    assert list(map(int, ids)) == load_tokenizer(out).encode("sea shells")
    assert main(["tokenizer", "decode", "--tokenizer", out, *ids]) == 0
    assert capsys.readouterr().out == "sea shells\n"


def test_what_wordpiece_loses_is_said_and_cased_loses_less(text_file, capsys):
    _, out = train(text_file, "--kind", "wordpiece", "--vocab-size", "32")
    assert "does not keep capitals, accents, line breaks and other white space, words it" in capsys.readouterr().out
    assert load_tokenizer(out).decode(load_tokenizer(out).encode("She  sells")) == "she sells"
    (text_file.parent / "tokenizer" / "tokenizer.json").unlink()
    _, out = train(text_file, "--kind", "wordpiece", "--vocab-size", "32", "--cased")
    assert "does not keep line breaks and other white space, words it" in capsys.readouterr().out
    assert load_tokenizer(out).decode(load_tokenizer(out).encode("She  sells")) == "She sells"


def test_files_are_read_in_parts_and_described_like_a_corpus(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streamed_text, "PART", 100)
    monkeypatch.setattr(word_counting, "CHUNK", 64)
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / name).write_text(TEXT + name + "<|endoftext|>" + TEXT, encoding="utf-8")
    out = str(tmp_path / "tokenizer")
    words = ["tokenizer", "train", "--data", str(tmp_path / "texts"), "--out", out, "--vocab-size", "270"]
    assert main([*words, "--held-out", "0"]) == 0
    corpus = load_corpus(tmp_path / "texts")
    assert corpus.describe() in capsys.readouterr().out
    assert load_tokenizer(out).merges == BPETokenizer.train(corpus.documents, 270).merges


def test_it_is_measured_on_what_pretrain_keeps_back(text_file, capsys):
    training, held_out = load_corpus(text_file).split()
    _, out = train(text_file, "--vocab-size", "270", "--compare", "bytes")
    ours, printed = load_tokenizer(out), capsys.readouterr().out
    assert ours.merges == BPETokenizer.train(training, 270).merges
    rows = {line.split()[0]: line.split()[1:3] for line in printed.splitlines()}
    num_bytes, tokens = len(held_out[0]), len(ours.encode(held_out[0]))
    assert rows["…" + out[-29:]] == [str(tokens), f"{num_bytes / tokens:.3f}"]
    assert rows["bytes"] == [str(num_bytes), "1.000"]
    assert "No wordpiece beside it: vocab_size is 270" in printed


def test_a_wordpiece_of_the_same_size_stands_beside_it(text_file, capsys):
    text_file.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    assert train(text_file, "--vocab-size", "290")[0] == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[3] for row in rows if row[:1] == ["wordpiece"]] == ["290"]


@pytest.mark.parametrize("share", ["1", "-0.1"])
def test_a_share_that_is_none(text_file, capsys, share):
    assert train(text_file, f"--held-out={share}")[0] == 2
    assert "--held-out is a share of the text, at least 0 and below 1, not" in capsys.readouterr().err


def test_a_tokenizer_to_compare_with_that_is_missing_is_found_out_first(text_file, capsys):
    assert train(text_file, "--compare", "no-such-folder")[0] == 2
    assert "no-such-folder" in capsys.readouterr().err
    assert not (text_file.parent / "tokenizer").exists()


def test_it_is_said_when_there_is_no_room_for_all_words(text_file, capsys, monkeypatch):
    text_file.write_text(TEXT + " ".join(map(str, range(400))), encoding="utf-8")
    monkeypatch.setitem(count_words.__kwdefaults__, "room", 400)
    code, _ = train(text_file, "--vocab-size", "270")
    assert code == 0
    assert "more different pieces than there is room for" in capsys.readouterr().out


def test_a_byte_that_is_not_utf8(text_file, capsys):
    text_file.write_bytes(b"She sells \xe9")
    assert train(text_file)[0] == 2
    assert "a text.txt is not UTF-8: byte 0xe9 at offset 10" in capsys.readouterr().err


def test_the_pattern_is_the_one_asked_for(text_file):
    _, out = train(text_file, "--vocab-size", "259", "--pattern", "..?")
    assert load_tokenizer(out).pattern == "..?"


def test_show_prints_pieces_and_bytes(text_file, capsys):
    _, out = train(text_file, "--kind", "bytes")
    capsys.readouterr()
    assert main(["tokenizer", "encode", "--tokenizer", out, "é!", "--show"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [r"b'\xc3'", r"b'\xa9'", "'!'"]


def test_text_from_standard_input(text_file, capsys, monkeypatch):
    _, out = train(text_file, "--kind", "bytes")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("AB"))
    assert main(["tokenizer", "encode", "--tokenizer", out, "-"]) == 0
    assert len(capsys.readouterr().out.split()) == 2


def test_a_tokenizer_is_not_overwritten(text_file, capsys):
    _, out = train(text_file, "--kind", "bytes")
    before = load_tokenizer(out).vocabulary_hash
    assert train(text_file, "--kind", "character")[0] == 2
    assert "exists and is not overwritten; choose another --out" in capsys.readouterr().err
    assert load_tokenizer(out).vocabulary_hash == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--data", "shakespeer", "--out", "x"], "did you mean shakespeare?"),
        (["train", "--data", __file__, "--out", "x", "--vocab-size", "3"], "vocab_size must be at least"),
        (["train", "--data", __file__, "--out", "x", "--pattern", "gpt5"], "pattern must be one of"),
        (["encode", "--tokenizer", "no-such-folder", "a"], "does not exist"),
        (["decode", "--tokenizer", "no-such-folder", "a"], "IDS"),
    ],
)
def test_one_line_for_a_mistake(capsys, words, says):
    assert main(["tokenizer", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
