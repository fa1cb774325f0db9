import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data import NAMES, Corpus, load_corpus
from tinyllm.errors import UserError

texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not text.isspace())


def test_a_file_is_one_document_whose_hash_is_the_files_own(tmp_path):
    path = tmp_path / "with a space.txt"
    path.write_bytes("Grüße,\r\nWelt\n".encode())
    corpus = load_corpus(path)
    assert corpus.documents == ["Grüße,\r\nWelt\n"]
    assert corpus.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert corpus.num_bytes == path.stat().st_size
    assert corpus.describe() == f"{path}: 1 document, 15 bytes, sha256 {corpus.sha256}"


def test_a_file_with_separators_is_several_documents(tmp_path):
    (tmp_path / "stories.txt").write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>\n")
    corpus = load_corpus(str(tmp_path / "stories.txt"))
    assert corpus.documents == ["one", "two"]
    assert corpus.num_bytes == 6
    assert "2 documents" in corpus.describe()


def test_a_folder_says_how_many_binary_files_it_skipped(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.bin").write_bytes(b"\0\1")
    assert load_corpus(tmp_path).describe().endswith("(1 binary file skipped)")


def test_a_folder_of_binary_files_is_an_empty_corpus(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"\0")
    with pytest.raises(UserError, match=r"is empty: there is no text in it \(2 binary files skipped\)"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(UserError, match=r"the corpus .*empty\.txt is empty"):
        load_corpus(tmp_path / "empty.txt")


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean shakespeare") as caught:
        load_corpus("shakespear")
    assert all(name in str(caught.value) for name in NAMES)


def test_a_missing_path_gets_no_far_fetched_suggestion():
    with pytest.raises(UserError, match=r"no/such/file\.txt is neither a corpus") as caught:
        load_corpus("no/such/file.txt")
    assert "did you mean" not in str(caught.value)


@given(texts.filter(lambda text: len(text) > 1), st.floats(0.01, 0.99))
def test_one_document_is_cut_once_by_characters(text, held_out):
    (training,), (validation,) = Corpus.of("test", [text]).split(held_out)
    assert training
    assert validation
    assert training + validation == text
    assert abs(len(validation) - held_out * len(text)) <= 1


@given(st.lists(texts, min_size=2), st.floats(0.01, 0.99), st.integers(0, 5), st.randoms())
def test_documents_are_parted_whole_whatever_their_order(documents, held_out, seed, random):
    if len(set(documents)) == 1:
        return
    training, validation = Corpus.of("test", documents).split(held_out, seed)
    assert training
    assert validation
    assert sorted(training + validation) == sorted(documents)
    assert not set(training) & set(validation)
    shuffled = random.sample(documents, len(documents))
    assert sorted(Corpus.of("test", shuffled).split(held_out, seed)[1]) == sorted(validation)


def test_the_seed_and_the_share_change_what_is_held_out():
    corpus = Corpus.of("test", [f"document {i}" for i in range(1000)])
    assert len(corpus.split(0.25)[1]) == 250
    assert corpus.split(seed=0) == corpus.split(seed=0)
    assert corpus.split(seed=0)[1] != corpus.split(seed=1)[1]
    assert corpus.split()[0] == sorted(corpus.split()[0], key=corpus.documents.index)  # order is kept


def test_the_split_is_the_same_on_every_machine_and_in_every_version():
    corpus = Corpus.of("test", [str(i) for i in range(20)])
    assert corpus.split()[1] == ["8", "9"]


def test_the_hash_tells_documents_apart():
    assert Corpus.of("test", ["ab", "c"]).sha256 != Corpus.of("test", ["a", "bc"]).sha256


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, float("nan")])
def test_a_share_outside_0_and_1_is_an_error(share):
    with pytest.raises(UserError, match="between 0 and 1; it was"):
        Corpus.of("test", ["text"]).split(share)


def test_what_cannot_be_split_is_an_error():
    with pytest.raises(UserError, match="holds 1 character"):
        Corpus.of("test", ["x"]).split()
    with pytest.raises(UserError, match="all 2 documents of test are equal"):
        Corpus.of("test", ["x", "x"]).split()
