"""Corpora against the published facts about them (see the reference folder's README)."""

import os
from pathlib import Path

import numpy as np
import pytest

from tinyllm.data import load_corpus, named_texts
from tinyllm.evaluation import lzma_bits_per_byte
from tinyllm.evaluation.baselines import ngram_nats
from tinyllm.files import sha256_of

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or Path(__file__).parents[3] / "shared" / "reference")

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not (REFERENCE / "text").is_dir(), reason=f"no reference files (TINYLLM_REFERENCE) in {REFERENCE}"
    ),
]


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    monkeypatch.setenv("TINYLLM_REFERENCE", str(REFERENCE))


def test_shakespeare_is_the_file_that_everybody_has():
    corpus = load_corpus("shakespeare")
    assert corpus.sha256 == named_texts.SHAKESPEARE.sha256 == sha256_of(REFERENCE / "text" / "tinyshakespeare.txt")
    (training,), (validation,) = corpus.split()
    assert (len(training), len(validation)) == (1_003_854, 111_540)
    assert len(set(training + validation)) == 65


def test_tinystories_is_a_sample_of_stories():
    corpus = load_corpus("tinystories")
    assert 2_316 <= corpus.num_documents <= 2_317  # the last one is cut off
    assert "sample" in corpus.note
    assert not any("<|endoftext|>" in document for document in corpus.documents)
    training, validation = corpus.split()
    assert abs(len(validation) / corpus.num_documents - 0.1) < 0.01
    assert not set(training) & set(validation)


@pytest.mark.parametrize(("order", "known", "tolerance"), [(1, 3.347, 0.001), (2, 2.484, 0.005), (3, 2.058, 0.025)])
def test_ngrams_of_shakespeare_cost_the_known_nats_per_character(order, known, tolerance):
    (training,), (validation,) = load_corpus("shakespeare").split()
    symbols = sorted(set(training + validation))
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    tokens = [np.array([ids[character] for character in text]) for text in (training, validation)]
    nats = ngram_nats(*tokens, vocab_size=65, order=order)
    assert nats.mean() == pytest.approx(known, abs=tolerance)


def test_lzma_on_shakespeare():
    (training,), (validation,) = load_corpus("shakespeare").split()
    assert lzma_bits_per_byte(training, validation) == pytest.approx(2.518, abs=0.02)
