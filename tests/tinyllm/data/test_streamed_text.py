"""Files read part by part are the corpus that is loaded whole."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyllm.data import Corpus, StreamedCorpus, load_corpus, streamed_text
from tinyllm.errors import UserError
from tinyllm.tokenizers.safe_cuts import last_cut

SEPARATOR = "<|endoftext|>"
texts = st.lists(
    st.sampled_from(
        [SEPARATOR, SEPARATOR, "<|end", " ", "\n", "a b c\nd", "oftext|>", "\ufeff", "日本🙂", "x" * 9, "a b "]
    ),
    max_size=20,
).map("".join)


@pytest.fixture
def small(monkeypatch):
    """Blocks that end inside characters and separators, and parts of a few characters."""
    monkeypatch.setattr(streamed_text, "BLOCK", 5)
    monkeypatch.setattr(streamed_text, "PART", 8)


def documents_of(corpus):
    """The documents that the parts make."""
    documents = []
    for part, begins in marked(corpus):
        documents[len(documents) :] = [part] if begins else []
        documents[-1] += "" if begins else part
    return documents


def marked(corpus):
    """The parts, each with whether it begins a document."""
    before = 0
    for part in corpus:
        yield part, corpus.num_documents > before
        before = corpus.num_documents


@settings(max_examples=300, deadline=None)
@given(content=texts, cut=st.sampled_from([None, last_cut]), block=st.integers(3, 30), part=st.integers(1, 30))
@example(content=f" a b{SEPARATOR} \n{SEPARATOR}c\nd e f g h i j k  {SEPARATOR}", cut=last_cut, block=5, part=8)
def test_the_documents_are_those_that_would_be_loaded(tmp_path_factory, content, cut, block, part):
    path = tmp_path_factory.getbasetemp() / "streamed.txt"
    path.write_text(content, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed_text, "BLOCK", block)
        patch.setattr(streamed_text, "PART", part)
        streamed = StreamedCorpus(path, cut)
        if not content.removeprefix("\ufeff").replace(SEPARATOR, "").strip():
            with pytest.raises(UserError, match="is empty: there is no text in it"):
                list(streamed)
            return
        loaded = load_corpus(path)
        assert documents_of(streamed) == loaded.documents
        assert streamed.describe() == loaded.describe()
        assert (streamed.num_documents, streamed.num_bytes) == (loaded.num_documents, loaded.num_bytes)


def test_long_documents_come_in_parts(tmp_path, small):
    (tmp_path / "a.txt").write_text("one two three four five six seven " * 20)
    assert len(list(StreamedCorpus(tmp_path / "a.txt", last_cut))) > 20
    assert len(list(StreamedCorpus(tmp_path / "a.txt"))) == 1


def test_a_document_without_a_place_to_cut_is_looked_through_a_few_times(tmp_path, small):
    (tmp_path / "a.txt").write_text("é" * 3000)
    asked = []
    assert len(list(StreamedCorpus(tmp_path / "a.txt", lambda text, start, stop: asked.append(stop)))) == 1
    assert len(asked) < 15


def test_a_folder_and_the_progress(tmp_path, small):
    (tmp_path / "a.txt").write_text("first text")
    (tmp_path / "b.bin").write_bytes(b"text\0")
    (tmp_path / "c.txt").write_text("größer")
    corpus, calls = StreamedCorpus(tmp_path), []
    assert list(corpus.read(lambda *state: calls.append(state))) == load_corpus(tmp_path).documents
    assert corpus.describe() == load_corpus(tmp_path).describe()
    assert "1 binary file skipped" in corpus.describe()
    assert calls[-1] == (23, 23)
    assert calls == sorted(calls)
    assert len(calls) > 4


def test_describing_reads_what_was_not_read(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    corpus = StreamedCorpus(tmp_path / "a.txt")
    assert corpus.describe() == load_corpus(tmp_path / "a.txt").describe()
    assert list(corpus.documents) == ["text"]
    next(iter(corpus))
    assert corpus.describe() == load_corpus(tmp_path / "a.txt").describe()


def test_a_loaded_corpus_is_read_in_the_same_way():
    calls = []
    assert list(Corpus.of("x", ["é", "ab"]).read(lambda *state: calls.append(state))) == ["é", "ab"]
    assert calls == [(2, 4), (4, 4)]


@pytest.mark.parametrize("offset", [0, 3, 4, 5, 6, 123])
def test_a_byte_that_is_not_utf8_is_named_with_its_place(tmp_path, small, offset):
    (tmp_path / "old.txt").write_bytes(b"a" * offset + b"\xdfe" + b"a" * 20)
    with pytest.raises(UserError, match=rf"old\.txt is not UTF-8: byte 0xdf at offset {offset}; convert it"):
        list(StreamedCorpus(tmp_path / "old.txt"))


def test_a_character_that_is_cut_off_at_the_end(tmp_path, small):
    (tmp_path / "cut.txt").write_bytes(b"aaaa" + "🙂".encode()[:3])
    with pytest.raises(UserError, match=r"cut\.txt is not UTF-8: byte 0xf0 at offset 4; convert it"):
        list(StreamedCorpus(tmp_path / "cut.txt"))


def test_a_single_binary_file_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"text\0")
    with pytest.raises(UserError, match=r"is binary or UTF-16 \(it holds zero bytes\)"):
        list(StreamedCorpus(tmp_path / "a"))


def test_a_misspelt_name_and_a_file_that_went_away(tmp_path):
    with pytest.raises(UserError, match="did you mean shakespeare"):
        StreamedCorpus("shakespeer")
    (tmp_path / "a.txt").write_text("text")
    corpus = StreamedCorpus(tmp_path / "a.txt")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt cannot be read"):
        list(corpus)
