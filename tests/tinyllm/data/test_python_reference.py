import hashlib
import sys
import time

import pytest

from tinyllm.data import load_corpus, python_reference
from tinyllm.data.python_reference import docstring_entries, paragraphs
from tinyllm.errors import UserError


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("python-reference")


def test_it_is_a_manual_of_one_page_a_name(corpus):
    assert corpus.num_documents > 3000
    assert 0.8e6 < corpus.num_bytes < 3e6
    assert all(document.startswith("help(") and document.endswith("\n") for document in corpus.documents)
    pages = {document.split("\n", 1)[0]: document for document in corpus.documents}
    assert "Deserialize" in pages["help(json.load)"]
    assert "help(_pydecimal)" not in pages
    assert not any(name.startswith(("help(test.", "help(idlelib", "help(lib2to3")) for name in pages)


def test_its_paragraphs_are_sentences_and_none_comes_twice(corpus):
    found = [line for document in corpus.documents for line in document.strip().split("\n\n")[1:]]
    assert len(found) == len(set(found))
    for line in found:
        assert python_reference.is_prose(line), line
        assert "\n" not in line
        assert ">>>" not in line


def test_it_is_the_same_every_time_and_quick(corpus):
    start = time.perf_counter()
    again = load_corpus("python-reference")
    assert again.sha256 == corpus.sha256
    assert time.perf_counter() - start < 20  # about 2 s on an idle machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return the sum of\nboth numbers, rounded.", ["Return the sum of both numbers, rounded."]),
        (
            "Take the value of ``x`` or an instance of :class:`~a.B` or *that* thing there, or the `now'.",
            ['Take the value of "x" or an instance of a.B or that thing there, or the "now".'],
        ),
        (
            "* The first item of the list.\n* The second item\n  of the list.",
            ["The first item of the list.", "The second item of the list."],
        ),
        ("One paragraph of six good words.\n\n    2, 4, 6", ["One paragraph of six good words."]),
        ("The sum of two numbers and a\n    third one, which is rounded.", []),  # neither half is a sentence
        (">>> print('This is a long sentence, is it not?')\nThis is a long sentence, is it not?", []),
        ("Name      Meaning of the name in words.\nOther     Meaning of the other in words.", []),
        ("Stmt ::= 'assert' expression [',' expression] (';' stmt)*.", []),
        ("Only five words are here.", []),
        ("the fragment of a sentence that began elsewhere.", []),
        ("A heading that never comes to an end", []),
        ("XXX This should be done in another way.", []),
        ("Written by somebody who is at somebody@example.org today.", []),
    ],
)
def test_what_counts_as_prose(text, expected):
    assert paragraphs(text) == expected


def test_docstrings_are_read_and_never_run(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""The package."""\nraise SystemExit("this was run")\n')
    (tmp_path / "module.py").write_text(
        "try:\n    class A:\n        '''A.'''\n        async def b(self): '''B.'''\n"
        "        def _hidden(self): '''No.'''\n"
        "except E:\n    def c():\n        '''C.'''\n        def inner(): '''No.'''\n"
    )
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "_private.py").write_text('"""No."""')
    for folder in ("_private_folder", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text('"""No."""')
    assert docstring_entries(tmp_path) == [
        *[("module.A", "A."), ("module.A.b", "B."), ("module.c", "C.")],
        ("package", "The package."),
    ]


def test_a_python_without_its_manual(monkeypatch, tmp_path):
    monkeypatch.setattr(python_reference.sysconfig, "get_path", lambda name: str(tmp_path))
    assert load_corpus("python-reference").num_documents > 10  # the topics alone
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="this Python has neither pydoc_data nor"):
        load_corpus("python-reference")
    with pytest.raises(UserError, match="the corpus python-stdlib is made of"):
        load_corpus("python-stdlib")


def test_the_standard_library_is_one_document_a_file():
    corpus = load_corpus("python-stdlib")
    assert corpus.num_documents > 300
    with open(hashlib.__file__, encoding="utf-8") as file:
        assert file.read() in corpus.documents
