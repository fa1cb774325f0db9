import numpy as np
import pytest

from tinyllm.data import Corpus, TokenFile, num_bytes_of_targets, prepare
from tinyllm.errors import UserError
from tinyllm.tokenizers import ByteTokenizer as RealByteTokenizer
from tinyllm.tokenizers import WordPieceTokenizer


class ByteTokenizer:
    """As little as a tokenizer can be."""

    vocab_size = 257
    vocabulary_hash = "ab" * 32
    end_of_text = 256

    def encode_to_array(self, text):
        return np.frombuffer(text.encode(), np.uint8)


@pytest.fixture
def corpus():
    return Corpus.of("test", [f"document number {i} – ß" for i in range(20)])


def test_documents_end_in_end_of_text(corpus, tmp_path):
    data = prepare(corpus, ByteTokenizer(), tmp_path / "run" / "data")
    for file, documents in zip((data.training, data.validation), corpus.split(), strict=True):
        assert (file.tokens == 256).sum() == len(documents)
        assert file.tokens[-1] == 256
        pieces = [
            bytes(piece.tolist()).decode() for piece in np.split(file.tokens, np.flatnonzero(file.tokens == 256))[:1]
        ]
        assert pieces == documents[:1]
        assert file.num_bytes == sum(len(document.encode()) for document in documents)
        assert file.count == file.num_bytes + len(documents)
    assert data.training.num_bytes + data.validation.num_bytes == corpus.num_bytes


def test_one_document_gets_no_end_of_text(tmp_path):
    data = prepare(Corpus.of("test", ["x" * 100]), ByteTokenizer(), tmp_path)
    assert (data.training.count, data.validation.count) == (90, 10)
    assert 256 not in data.training.tokens


def test_a_tokenizer_without_end_of_text(corpus, tmp_path):
    tokenizer = ByteTokenizer()
    tokenizer.end_of_text = None
    data = prepare(corpus, tokenizer, tmp_path)
    assert data.training.count == data.training.num_bytes


def test_the_same_is_reused_and_anything_else_is_made_anew(corpus, tmp_path):
    tokenizer = ByteTokenizer()
    assert not prepare(corpus, tokenizer, tmp_path).reused
    assert prepare(corpus, tokenizer, tmp_path).reused
    assert not prepare(corpus, tokenizer, tmp_path, seed=1).reused
    assert not prepare(corpus, tokenizer, tmp_path, held_out=0.2, seed=1).reused
    assert not prepare(Corpus.of("test", corpus.documents[1:]), tokenizer, tmp_path, held_out=0.2, seed=1).reused
    tokenizer.vocabulary_hash = "cd" * 32
    data = prepare(Corpus.of("test", corpus.documents[1:]), tokenizer, tmp_path, held_out=0.2, seed=1)
    assert not data.reused
    assert data.training.vocabulary_hash == "cd" * 32


def test_what_a_killed_run_left_is_not_reused(corpus, tmp_path):
    tokenizer = ByteTokenizer()
    prepare(corpus, tokenizer, tmp_path)
    other = prepare(corpus, tokenizer, tmp_path / "other", seed=1)
    (tmp_path / "training.tokens").write_bytes(other.training.path.read_bytes())  # killed before prepared.json
    assert not prepare(corpus, tokenizer, tmp_path).reused
    (tmp_path / "validation.tokens").unlink()
    assert not prepare(corpus, tokenizer, tmp_path).reused


def test_progress_ends_at_all_bytes(corpus, tmp_path):
    seen = []
    prepare(corpus, ByteTokenizer(), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 20
    assert seen[-1] == (corpus.num_bytes, corpus.num_bytes)


def test_the_files_refuse_another_tokenizer(corpus, tmp_path):
    data = prepare(corpus, ByteTokenizer(), tmp_path)
    with pytest.raises(UserError, match="another tokenizer"):
        TokenFile.open(data.training.path, "cd" * 32)


WORDS = WordPieceTokenizer(["[UNK]", "<|endoftext|>", "a", "b", "cafe"], ["[UNK]", "<|endoftext|>"])


def test_bytes_of_targets_are_counted_in_the_text(tmp_path):
    """Tokens of 2 to 21 bytes, which the ids cannot tell."""
    pieces = [" a", "   B", " \u200b\u200bCaf\u00e9", "\n" * 20 + "A", " unknown"]
    corpus = Corpus.of("test", ["".join(pieces * number) for number in range(1, 30)])
    tokens = prepare(corpus, WORDS, tmp_path).validation
    sizes = []
    for document in corpus.split()[1]:
        sizes += [len(piece.encode()) for piece in pieces] * (len(document) // len("".join(pieces))) + [0]
    assert len(sizes) == tokens.count
    assert sum(sizes) == tokens.num_bytes
    for count in (0, 1, 2, 17, len(sizes) - 1, len(sizes) + 100):
        assert num_bytes_of_targets(corpus, WORDS, count) == sum(sizes[1 : count + 1])


def test_bytes_of_targets_of_a_tokenizer_that_loses_nothing():
    corpus = Corpus.of("test", [f"document number {i} \u2013 \u00df" for i in range(20)])
    held_out = "".join(f"{document}\0" for document in corpus.split()[1]).encode()  # \0 for end-of-text
    for count in (1, 20, len(held_out) - 1):
        expected = len(held_out[1 : count + 1].replace(b"\0", b""))
        assert num_bytes_of_targets(corpus, RealByteTokenizer(), count) == expected
