"""Byte-level BPE against its definition, written here as slowly and plainly as it is defined."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer
from tinyllm.tokenizers.bpe_merging import merge_ids, merge_long
from tinyllm.tokenizers.bpe_training import learn_merges
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.patterns import PATTERNS, splitter
from tinyllm.tokenizers.words import Words

PROSE = (
    "Once upon a time there was a little dog. It didn't like the rain, but it liked the 1234 puddles!\n\n"
    "  Once the sun came out, the dog ran and ran; 'Where's my ball?' asked the dog. Größe, naïve, 日本語, 🙂🙂.\n"
) * 3


def naive_merge(word, pair, made):
    out = []
    for token in word:
        out.append(token)
        if tuple(out[-2:]) == pair:
            out[-2:] = [made]
    return out


def naive_train(texts, number, pattern):
    """Every merge recounts every piece of the whole text, in text order."""
    words = [[BYTE_ORDER.index(b) for b in piece.encode()] for text in texts for piece in regex.findall(pattern, text)]
    merges = []
    for made in range(256, 256 + number):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        words = [naive_merge(word, pair, made) for word in words]
    return merges


def naive_merge_ids(ids, merges):
    """One merge at a time: the lowest rank, the leftmost of it."""
    ids = list(ids)
    while True:
        ranked = [(merges[pair][0], place) for place, pair in enumerate(pairwise(ids)) if pair in merges]
        if not ranked:
            return ids
        place = min(ranked)[1]
        ids[place : place + 2] = [merges[tuple(ids[place : place + 2])][1]]


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([PROSE], vocab_size=330, special_tokens=["<|endoftext|>", "<|end|>"])


few_letters = st.text(alphabet="aab cé\n1", max_size=60)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(few_letters, max_size=4), number=st.integers(0, 12), pattern=st.sampled_from(["gpt2", "gpt4"]))
def test_training_equals_the_definition(texts, number, pattern):
    expected = naive_train(texts, number, PATTERNS[pattern])
    vocab_size = 256 + len(expected) + 1
    trained = BPETokenizer.train(texts, vocab_size=vocab_size, pattern=pattern)
    assert trained.merges == expected
    assert trained.vocab_size == vocab_size


def test_training_on_prose_equals_the_definition():
    assert BPETokenizer.train([PROSE], vocab_size=257 + 100).merges == naive_train([PROSE], 100, PATTERNS["gpt4"])


@settings(max_examples=300, deadline=None)
@given(
    ids=st.lists(st.integers(0, 2), max_size=15),
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=10, unique=True),
    ranks=st.lists(st.integers(0, 6), min_size=10, max_size=10),
)
@example(ids=[0, 1, 2], pairs=[(1, 2), (0, 1)], ranks=[*range(10)])  # the second pair is gone once the first is merged
@example(ids=[0, 1, 2], pairs=[(1, 2), (0, 1)], ranks=[0] * 10)  # of equals the left one, though it comes later here
def test_merging_equals_the_definition(ids, pairs, ranks):
    # Any list of merges, also those that no training would make; equal ranks are those of equal scores.
    merges = {pair: (rank, 3 + number) for number, (pair, rank) in enumerate(zip(pairs, ranks, strict=False))}
    assert merge_ids(ids, merges) == naive_merge_ids(ids, merges)
    assert merge_long(ids, merges) == naive_merge_ids(ids, merges)


@given(words=st.lists(st.sampled_from([*regex.findall(PATTERNS["gpt4"], PROSE), "d", "og", "th", "n", " "])))
def test_encoding_equals_the_definition(tokenizer, words):
    merges = {pair: (rank, 256 + rank) for rank, pair in enumerate(tokenizer.merges)}
    pieces = regex.findall(PATTERNS["gpt4"], "".join(words))
    expected = []
    for piece in pieces:
        expected += naive_merge_ids([BYTE_ORDER.index(byte) for byte in piece.encode()], merges)
    assert tokenizer.encode("".join(words)) == expected


@given(text=st.text())
def test_round_trip_of_any_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(data=st.binary(max_size=100))
def test_round_trip_of_any_bytes(tokenizer, data):
    # Bytes that are no UTF-8 cannot be encoded from text, but their ids stand for exactly them.
    ids = [BYTE_ORDER.index(byte) for byte in data]
    assert tokenizer.decode_bytes(ids) == data
    assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


@given(text=st.text(alphabet="<|endofxt> ", max_size=80))
def test_ordinary_text_never_makes_special_tokens(tokenizer, text):
    text = text + "<|endoftext|>" + text
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_tokens.values())


def test_ids_are_bytes_then_merges_then_special_tokens(tokenizer):
    assert tokenizer.vocab_size == 330
    assert [tokenizer.token_bytes(token) for token in range(256)] == [bytes([byte]) for byte in BYTE_ORDER]
    assert tokenizer.token_bytes(0) == b"!"
    for token, (left, right) in enumerate(tokenizer.merges, start=256):
        assert tokenizer.token_bytes(token) == tokenizer.token_bytes(left) + tokenizer.token_bytes(right)
    assert tokenizer.special_tokens == {"<|endoftext|>": 328, "<|end|>": 329}
    assert tokenizer.end_of_text == 328
    assert BPETokenizer.train([], 256, special_tokens=()).end_of_text is None


def test_frequent_words_are_one_token(tokenizer):
    assert [tokenizer.token_bytes(token) for token in tokenizer.encode(" the dog")] == [b" the", b" dog"]


def test_ties_go_to_the_smallest_pair_of_ids():
    # All pairs occur once; "!" has id 0, so of ("z","a"), ("!","z") and ("a","!") the second is first.
    assert learn_merges(Words.of({"za": 1, "!z": 1, "a!": 1}), 3) == [
        (0, BYTE_ORDER.index(ord("z"))),
        (BYTE_ORDER.index(ord("a")), 0),
        (BYTE_ORDER.index(ord("z")), BYTE_ORDER.index(ord("a"))),
    ]
    # GPT-2's order and not that of byte values: a space is byte 32, but its id is above that of every letter.
    assert learn_merges(Words.of({" a": 1, "ba": 1}), 1) == [(BYTE_ORDER.index(ord("b")), BYTE_ORDER.index(ord("a")))]


def test_training_does_not_depend_on_the_order_of_texts():
    texts = PROSE.split("\n")
    first = BPETokenizer.train(texts, vocab_size=340)
    for seed in range(5):
        random.Random(seed).shuffle(texts)
        again = BPETokenizer.train(iter(texts), vocab_size=340)
        assert again.merges == first.merges
        assert again.vocabulary_hash == first.vocabulary_hash


def test_special_tokens_separate_texts_and_are_not_learned():
    joined = BPETokenizer.train(["the dog<|endoftext|>the cat<|endoftext|>"], vocab_size=261)
    assert joined.merges == BPETokenizer.train(["the dog", "the cat"], vocab_size=261).merges


def test_progress_counts_to_the_end():
    calls = []
    BPETokenizer.train([PROSE], vocab_size=267, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_a_user_pattern_loses_no_text():
    tokens = {token: bytes([byte]) for token, byte in enumerate(BYTE_ORDER)}
    b, one = BYTE_ORDER.index(ord("b")), BYTE_ORDER.index(ord("1"))
    for pattern in (r"[a-z]+", r"([a-z])([0-9])?", r"x*"):
        own = BPETokenizer(tokens | {256: b"b1"}, [(b, one)], pattern, {})
        assert own.decode(own.encode("abc12 DEF? x ghi3!")) == "abc12 DEF? x ghi3!"
    # What stands between matches is a piece of its own: no merge crosses into it.
    assert BPETokenizer(tokens | {256: b"b1"}, [(b, one)], r"[a-z]+", {}).encode("ab1")[1:] == [b, one]
    # A pattern with as many groups as the text has characters is not mistaken for one without.
    assert splitter(r"([a-z]+)|([^a-z]+)")("ab") == ["ab"]


@pytest.mark.parametrize(
    ("pattern", "text", "left_over"),
    [
        (r"[a-z]+", "abc12", r"'1' \(character 3 of 'abc12'…\)"),
        (r"[a-z]+", " abc", r"' ' \(character 0 of"),
        (r"([a-z]+)|( )", "ab cd\n", r"'\\n' \(character 5 of"),
        (r"x*", "xab", r"'a' \(character 1 of"),
        (r".", "a\nb", r"'\\n' \(character 1 of"),
    ],
)
def test_learning_refuses_a_pattern_that_does_not_cover_its_text(pattern, text, left_over):
    with pytest.raises(UserError, match=f"does not cover its text: it leaves over {left_over}"):
        BPETokenizer.train(["", text], vocab_size=257, pattern=pattern)
    covering = BPETokenizer.train([text], vocab_size=257, pattern=f"(?s){pattern}|.")
    assert covering.decode(covering.encode(text)) == text


@pytest.mark.parametrize(
    ("pattern", "text", "pieces"),
    [
        ("gpt2", "Hello, it's  1234 DON'T", ["Hello", ",", " it", "'s", " ", " 1234", " DON", "'", "T"]),
        ("gpt4", "Hello, it's  1234 DON'T", ["Hello", ",", " it", "'s", " ", " ", "123", "4", " DON", "'T"]),
        ("gpt2", "(word) a.\n\n b", ["(", "word", ")", " a", ".", "\n\n", " b"]),
        ("gpt4", "(word) a.\n\n b", ["(word", ")", " a", ".\n\n", " b"]),
    ],
)
def test_named_patterns_cut_as_published(pattern, text, pieces):
    assert splitter(PATTERNS[pattern])(text) == pieces


def test_encode_to_array(tokenizer):
    ids = tokenizer.encode_to_array("the dog<|end|>", allowed_special="all")
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert ids.tolist() == tokenizer.encode("the dog<|end|>", allowed_special="all")
    assert tokenizer.decode(ids) == "the dog<|end|>"
    assert tokenizer.encode_to_array("").shape == (0,)


def test_a_hundred_thousand_equal_letters_take_no_square_time(tokenizer):
    # One piece: merging by rescanning it for every merge would take minutes.
    assert tokenizer.decode(tokenizer.encode("a" * 100_000)) == "a" * 100_000


def test_long_pieces_are_not_remembered(tokenizer):
    fresh = BPETokenizer.train([PROSE], vocab_size=300)
    fresh.encode("x" * 41 + " " + "y" * 39)
    assert list(fresh._remembered) == [" " + "y" * 39]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 256}, "vocab_size must be at least 257 .*got 256; choose a larger one"),
        ({"vocab_size": 9999}, r"support only \d+ tokens .*choose vocab_size=\d+ or less, or train on more text"),
        ({"pattern": "gpt5"}, "pattern must be one of gpt2, gpt4, gpt4o or a regular expression.*'gpt5'"),
        ({"pattern": 7}, "pattern must be one of gpt2, gpt4, gpt4o"),
        ({"pattern": "(a"}, "is not a regular expression of the regex module: "),
        ({"texts": "one text"}, "texts must be a collection of texts, got a single one; write"),
        ({"texts": [b"bytes"]}, "expected a text .*got bytes"),
        ({"texts": ["a \ud800"]}, "lone surrogate '.ud800' .character 2."),
        ({"special_tokens": "<|end|>"}, "special_tokens must be a collection of names"),
        ({"special_tokens": ["<|a|>", "<|a|>"]}, "'<|a|>' is named twice".replace("|", r"\|")),
        ({"special_tokens": ["a"]}, "special token 'a' is also ordinary text"),
        ({"special_tokens": [7]}, "expected a text .*got int"),
    ],
)
def test_mistakes_in_training(arguments, message):
    with pytest.raises(UserError, match=message):
        BPETokenizer.train(**{"texts": [PROSE], "vocab_size": 300, **arguments})


def test_the_supported_vocabulary_is_really_supported():
    with pytest.raises(UserError) as caught:
        BPETokenizer.train([PROSE], vocab_size=5000)
    most = int(regex.search(r"only (\d+) tokens", str(caught.value))[1])
    assert BPETokenizer.train([PROSE], vocab_size=most).vocab_size == most
    with pytest.raises(UserError):
        BPETokenizer.train([PROSE], vocab_size=most + 1)


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(UserError, match="has all 256 bytes; 255 are missing, the first is 0x00"):
        BPETokenizer({0: b"a"}, [], "gpt2", {})


def test_a_vocabulary_with_the_same_token_twice_is_refused():
    tokens = {token: bytes([byte]) for token, byte in enumerate(BYTE_ORDER)}
    with pytest.raises(UserError, match="the token b'!' occurs twice in the vocabulary"):
        BPETokenizer(tokens | {256: b"!"}, [], "gpt2", {})


@pytest.mark.parametrize(
    ("special_tokens", "message"),
    [
        ({"<|x|>": 5}, "has the id 5 of another token"),
        ({"<|x|>": 300, "<|y|>": 300}, "has the id 300 of another token"),
        ({"<|x|>": -1}, "a token id must be a whole number"),
        ({"<|x|>": 2**31}, "a token id must be a whole number"),
        ({"<|x|>": "300"}, "a token id must be a whole number"),
        ({"": 300}, "special token '' is also ordinary text"),
    ],
)
def test_special_tokens_need_names_and_ids_of_their_own(special_tokens, message):
    tokens = {token: bytes([byte]) for token, byte in enumerate(BYTE_ORDER)}
    with pytest.raises(UserError, match=message):
        BPETokenizer(tokens, [], "gpt2", special_tokens)
