"""Text is cut where tiktoken cuts it, over all code points.

tiktoken does not tell its pieces, but gives a piece that is in the vocabulary as one token. So each text is encoded
with a vocabulary of the pieces that we found and of all neighbours of these, joined: a cut more, or one less, changes
the ids. (tiktoken's own spelling of "gpt4" keeps white space at the end of a text together, which no vocabulary learned
from these pieces can show; that the ids are the same is tested with the real ones.)
"""

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings

from tinyllm.tokenizers.patterns import PATTERNS, splitter

tiktoken = pytest.importorskip("tiktoken")

BYTES = [bytes([byte]) for byte in range(256)]
named = pytest.mark.parametrize("name", PATTERNS)


def texts_of(module):
    """The module of tests whose texts these tests use too."""
    path = Path(__file__).parents[1] / "tinyllm" / "tokenizers" / f"{module}.py"
    spec = importlib.util.spec_from_file_location(module, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


ours = texts_of("test_splitting")


def assert_cut_alike(name, text):
    pieces = [piece.encode() for piece in splitter(PATTERNS[name])(text)]
    joined = [left + right for left, right in pairwise(pieces)]
    ranks = {content: rank for rank, content in enumerate(dict.fromkeys([*BYTES, *pieces, *joined]))}
    encoding = tiktoken.Encoding("pieces", pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
    theirs = encoding.encode_ordinary(text)
    if theirs != [ranks[piece] for piece in pieces]:
        found = [list(ranks)[token] for token in theirs]
        place = next(place for place, (a, b) in enumerate(zip(found, pieces, strict=False)) if a != b)
        raise AssertionError(f"theirs: … {found[place : place + 4]}, ours: … {pieces[place : place + 4]}")


@named
def test_all_code_points_are_cut_as_by_tiktoken(name):
    for _, _, text in ours.everyone_in_context():
        assert_cut_alike(name, text)


@named
@settings(max_examples=300, deadline=None)
@given(text=ours.any_text)
def test_any_text_is_cut_as_by_tiktoken(name, text):
    assert_cut_alike(name, text)
