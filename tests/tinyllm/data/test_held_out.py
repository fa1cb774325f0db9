import pytest

from tinyllm.data import Corpus, Divided, StreamedCorpus, held_out

DOCUMENTS = [f"document {number}" for number in range(40)]


@pytest.fixture
def folder(tmp_path):
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / f"{number:02}.txt").write_text(text)
    return tmp_path


def test_a_corpus_is_divided_as_a_training_run_divides_it():
    corpus, calls = Corpus.of("numbers", DOCUMENTS), []
    divided = Divided(corpus, 0.1)
    learned = list(divided.read(lambda *state: calls.append(state)))
    assert (learned, divided.held_out) == corpus.split(0.1)
    assert calls[-1][0] == calls[-1][1] == sum(map(len, learned))
    assert divided.describe() == corpus.describe()


def test_nothing_is_kept_back_unless_asked_for(folder):
    for corpus in (Corpus.of("numbers", DOCUMENTS), StreamedCorpus(folder)):
        divided = Divided(corpus, 0)
        assert list(divided) == DOCUMENTS
        assert divided.held_out == []


def test_a_stream_keeps_back_every_so_many_th(folder):
    divided = Divided(StreamedCorpus(folder), 0.25)
    learned = list(divided)
    assert divided.held_out == DOCUMENTS[::4]
    assert sorted(learned + divided.held_out) == sorted(DOCUMENTS)
    next(iter(divided))  # looking at the beginning again changes nothing
    assert divided.held_out == DOCUMENTS[::4]


def test_a_stream_keeps_back_no_more_than_is_measured(folder, monkeypatch):
    monkeypatch.setattr(held_out, "MOST", 15)
    divided = Divided(StreamedCorpus(folder), 0.5)
    assert len(list(divided)) == 38
    assert divided.held_out == ["document 0", "docum"]
