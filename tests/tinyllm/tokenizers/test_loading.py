"""`load_tokenizer` finds out what a folder or file holds."""

import base64
import os
from pathlib import Path

import pytest

from tinyllm.errors import UserError
from tinyllm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentencePieceBPETokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or Path(__file__).parents[4] / "shared" / "reference")
TEXT = "the cat and the hat and the bat"
BPE = BPETokenizer.train([TEXT], vocab_size=262, pattern="gpt2")
WORDS = WordPieceTokenizer.train([TEXT], vocab_size=22, special_tokens=["[UNK]", "[CLS]"])


@pytest.mark.parametrize("names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")])
def test_the_two_files_of_gpt2(tmp_path, names):
    BPE.to_gpt2(*(tmp_path / name for name in names))
    assert load_tokenizer(tmp_path).vocabulary_hash == BPE.vocabulary_hash


def test_a_folder_of_bert(tmp_path):
    WORDS.save_vocab_txt(tmp_path / "vocab.txt")
    for path in (tmp_path, tmp_path / "vocab.txt"):
        assert load_tokenizer(path).vocabulary_hash == WORDS.vocabulary_hash


@pytest.mark.parametrize("tokenizer", [BPE, WORDS, ByteTokenizer(), CharacterTokenizer.train([TEXT])])
def test_a_tokenizer_json_under_any_name_goes_before_other_files(tmp_path, tokenizer):
    BPE.to_gpt2(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).vocabulary_hash == tokenizer.vocabulary_hash
    (tmp_path / "tokenizer.json").rename(tmp_path / "mine.json")
    assert load_tokenizer(tmp_path / "mine.json").vocabulary_hash == tokenizer.vocabulary_hash


def test_a_rank_file_is_known_by_its_name(tmp_path):
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256)]
    for name in ("r50k_base", "cl100k_base", "o200k_base", "mine"):
        (tmp_path / f"{name}.tiktoken").write_text("".join(lines), encoding="utf-8")
    assert load_tokenizer(tmp_path / "r50k_base.tiktoken").end_of_text == 50256
    assert load_tokenizer(tmp_path / "cl100k_base.tiktoken").special_tokens["<|endofprompt|>"] == 100276
    cut = load_tokenizer(tmp_path / "o200k_base.tiktoken")
    assert (cut.end_of_text, cut.pattern) == (199999, BPETokenizer.train(["ab"], 257, "gpt4o").pattern)
    with pytest.raises(UserError, match=r"mine\.tiktoken: a rank file says neither how text is cut"):
        load_tokenizer(tmp_path / "mine.tiktoken")


@pytest.mark.skipif(not (REFERENCE / "tokenizers").is_dir(), reason=f"no reference files in {REFERENCE}")
@pytest.mark.reference
def test_published_files():
    found = [load_tokenizer(REFERENCE / "tokenizers" / name) for name in ("gpt2", "tiktoken/r50k_base.tiktoken")]
    assert found[0].vocabulary_hash == found[1].vocabulary_hash
    assert isinstance(load_tokenizer(REFERENCE / "tokenizers/bert"), WordPieceTokenizer)
    llama = load_tokenizer(REFERENCE / "weights/stories260K/tok512.bin")
    assert isinstance(llama, SentencePieceBPETokenizer)
    assert llama.vocab_size == 512


@pytest.mark.parametrize(
    "name", ["nothing", "nothing/tokenizer.json", "nothing.txt", "nothing.bin", "r50k_base.tiktoken"]
)
def test_what_is_missing_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"{Path(name).name}.* does not exist"):
        load_tokenizer(tmp_path / name)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(UserError, match=r"tokenizer\.model is no file of a tokenizer; known are \.json"):
        load_tokenizer(tmp_path / "tokenizer.model")
    with pytest.raises(UserError, match=r"tokenizer\.json does not exist"):
        load_tokenizer(tmp_path)
