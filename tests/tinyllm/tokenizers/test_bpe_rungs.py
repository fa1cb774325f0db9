"""Three ways of encoding, one answer: plain Python, NumPy arrays and compiled kernels."""

import random
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, bpe_rungs, compiling
from tinyllm.tokenizers.patterns import PATTERNS

needs_numba = pytest.mark.skipif(not compiling.usable(), reason="Numba is not installed, or switched off")
RUNGS = ["python", "numpy", *(["numba"] if compiling.usable() else [])]
TEXT = "the cat and the hat and the bat; It's 12345 don't DON'T été 日本語 🙂🙂 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\n"


def random_tokenizer(seed, pattern="gpt4", letters="abcdeé日' 1\n", tokens=300, longest=64, **options):
    """A vocabulary that no training would make: ids with gaps, and merges in an order that few of them follow."""
    draw = random.Random(seed)
    contents = {bytes([byte]) for byte in range(256)}
    alphabet = [bytes([byte]) for byte in "".join(letters).encode()]
    while len(contents) < 256 + tokens:
        parts = draw.choices([*alphabet, *sorted(contents - set(map(bytes, [[b] for b in range(256)])))], k=2)
        if len(parts[0] + parts[1]) <= longest:
            contents.add(parts[0] + parts[1])
    ids = draw.sample(range(100_000), len(contents))
    numbered = dict(zip(ids, draw.sample(sorted(contents), len(contents)), strict=True))
    id_of = {content: token for token, content in numbered.items()}
    merges = [
        (id_of[content[:cut]], id_of[content[cut:]])
        for content in contents
        for cut in range(1, len(content))
        if content[:cut] in id_of and content[cut:] in id_of
    ]
    draw.shuffle(merges)
    return BPETokenizer(numbered, merges, pattern, {"<|end|>": 100_000}, **options)


TOKENIZERS = [random_tokenizer(seed, pattern) for seed, pattern in enumerate([*PATTERNS, *PATTERNS, r"\w+|\W"])]
TOKENIZERS.append(BPETokenizer.train([TEXT], vocab_size=290))
TOKENIZERS.append(BPETokenizer.train([], vocab_size=256, special_tokens=()))  # no merges at all
TOKENIZERS += [random_tokenizer(seed, pattern, longest=31, ignore_merges=True) for seed, pattern in enumerate(PATTERNS)]
own_pattern = TOKENIZERS[6]

any_text = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from([*"abcdeé日' 1\n\0\x7f\x85🙂\U0010ffff"]), max_size=200),
    st.lists(st.sampled_from([*"abcd", "aaaa" * 9, "abc" * 40, "日" * 40, " " * 33, "the", " the"])).map("".join),
)


def by_rung(tokenizer, rung, text):
    """Ids as a list, after a look at the array."""
    tokenizer.use_rung(rung)
    ids, array = tokenizer.encode(text), tokenizer.encode_to_array(text)
    assert array.dtype == np.int32
    assert array.ndim == 1
    assert array.tolist() == ids
    return ids


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=range(len(TOKENIZERS)))
@settings(max_examples=200, deadline=None)
@given(text=any_text)
@example(text="a" * 101)
@example(text="abcdabcdabcdabcdabcdabcdabcdabc")  # 31 bytes, the longest that is looked up
@example(text="abcdabcdabcdabcdabcdabcdabcdabcd")
@example(text="")
@example(text=" ".join(TOKENIZERS[-1].decode([token]) for token in [*TOKENIZERS[-1]._whole_pieces.values()][:300]))
def test_all_rungs_give_the_same_ids(tokenizer, text):
    rungs = RUNGS if tokenizer is not own_pattern else RUNGS[:2]
    ids = [by_rung(tokenizer, rung, text) for rung in rungs]
    assert all(other == ids[0] for other in ids[1:])
    assert tokenizer.decode(ids[0]) == text


@needs_numba
@pytest.mark.parametrize("length", [99, 100, 101, 1000, 20_000])
@pytest.mark.parametrize("letters", ["a", "ab", "abc", "日", "1"])
def test_long_pieces(length, letters):
    for tokenizer in TOKENIZERS[:3]:
        text = (letters * length)[:length]
        assert by_rung(tokenizer, "numba", text) == by_rung(tokenizer, "python", text)


@needs_numba
@pytest.mark.parametrize("slots", [1, 2])
def test_remembered_pieces_that_take_each_others_place(monkeypatch, slots):
    from tinyllm.tokenizers import bpe_encoder

    monkeypatch.setattr(bpe_encoder, "REMEMBERED_PIECES", slots)
    tokenizer, draw = random_tokenizer(11), random.Random(0)
    words = ["".join(draw.choices("abcde ", k=draw.randint(1, 40))) for _ in range(50)]
    for _ in range(20):
        text = "".join(draw.choices(words, k=200))
        assert by_rung(tokenizer, "numba", text) == by_rung(tokenizer, "python", text)


@needs_numba
def test_each_byte_of_a_remembered_piece_counts(monkeypatch):
    from tinyllm.tokenizers import bpe_encoder

    monkeypatch.setattr(bpe_encoder, "REMEMBERED_PIECES", 1)
    words = ["a" * place + letter + "b" * (28 - place) for place in range(29) for letter in "cd"]
    tokenizer = BPETokenizer.train([" ".join(words)], vocab_size=340)
    expected = [by_rung(tokenizer, "python", word) for word in words]
    assert max(map(len, expected)) <= 6  # or they would not be remembered
    tokenizer.use_rung("numba")
    for word, ids in zip(words, expected, strict=True):
        assert tokenizer.encode(word) == ids


@needs_numba
def test_texts_of_all_lengths_around_the_room_that_is_kept():
    tokenizer = TOKENIZERS[7]
    for length in (2**16 - 1, 2**16, 2**16 + 1, 300_000):
        text = (TEXT * (length // len(TEXT) + 1))[:length]
        assert by_rung(tokenizer, "numba", text) == by_rung(tokenizer, "python", text)


@needs_numba
def test_what_was_returned_is_not_written_again():
    tokenizer = TOKENIZERS[7]
    tokenizer.use_rung("numba")
    first = tokenizer.encode_to_array("the cat")
    kept = first.copy()
    tokenizer.encode_to_array("and the hat")
    assert (first == kept).all()


@needs_numba
def test_several_threads_use_one_tokenizer():
    tokenizer = random_tokenizer(12)
    texts = ["".join(random.Random(seed).choices("abcdeé日' 1\n", k=3000)) for seed in range(8)]
    expected = [by_rung(tokenizer, "python", text) for text in texts]
    tokenizer.use_rung("numba")
    wrong = []

    def work(number):
        for _ in range(100):
            if tokenizer.encode(texts[number]) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("rung", [*RUNGS, None])
def test_special_tokens_on_every_rung(rung):
    tokenizer = TOKENIZERS[0]
    tokenizer.use_rung(rung)
    plain = tokenizer.encode("abc <|end|>")
    assert 100_000 not in plain
    assert tokenizer.encode_to_array("abc <|end|>").tolist() == plain
    expected = [*tokenizer.encode("abc "), 100_000, *tokenizer.encode("de")]
    assert tokenizer.encode("abc <|end|>de", allowed_special="all") == expected
    assert tokenizer.encode_to_array("abc <|end|>de", allowed_special={"<|end|>"}).tolist() == expected
    for encode in (tokenizer.encode, tokenizer.encode_to_array):
        with pytest.raises(UserError, match="disallowed here"):
            encode("abc <|end|>", disallowed_special="all")
        with pytest.raises(UserError, match="lone surrogate"):
            encode("abc \ud800")
        with pytest.raises(UserError, match=r"expected a text .*got bytes"):
            encode(b"abc")
    tokenizer.use_rung(None)


@pytest.mark.parametrize("rung", [*RUNGS, None])
def test_a_batch_is_encoded_text_by_text(rung):
    tokenizer = TOKENIZERS[1]
    tokenizer.use_rung(rung)
    texts = ["", *("abc de" * number for number in range(40)), "a" * 300_000 + "<|end|>"]
    batch = tokenizer.encode_batch(texts, allowed_special="all")
    assert [ids.dtype for ids in batch] == [np.int32] * len(texts)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text, allowed_special="all") for text in texts]
    assert tokenizer.encode_batch([]) == []
    with pytest.raises(UserError, match="lone surrogate"):
        tokenizer.encode_batch([*texts, "\ud800"])
    with pytest.raises(UserError, match="texts must be a collection of texts"):
        tokenizer.encode_batch("one text")
    tokenizer.use_rung(None)


def test_mistakes_in_choosing_a_rung():
    with pytest.raises(UserError, match="rung must be one of python, numpy, numba or None; got 'rust'"):
        TOKENIZERS[0].use_rung("rust")
    with pytest.raises(UserError, match="kernels for the named patterns only"):
        own_pattern.use_rung("numba")


def test_plain_python_answers_until_kernels_are_there(monkeypatch):
    asked = []
    monkeypatch.setattr(bpe_rungs, "kernels_ready", lambda wait: asked.append(wait) or False)
    monkeypatch.setattr(bpe_rungs, "usable", lambda: True)
    monkeypatch.setattr(bpe_rungs, "PAUSE", 0)
    tokenizer = random_tokenizer(13)
    page = "abcde " * 100
    for _ in range(bpe_rungs.A_FEW_PAGES // len(page)):
        tokenizer.encode(page)
    assert not asked  # whoever encodes little does not even load Numba
    for _ in range(5):
        tokenizer.encode(page)
    assert asked
    assert not any(asked)
    monkeypatch.setattr(bpe_rungs, "LARGE_TEXT", 1000)
    assert tokenizer.encode("abcde " * 200) == by_rung(tokenizer, "python", "abcde " * 200)
    assert asked[-1]  # who has much to do waits
