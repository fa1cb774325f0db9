"""Three ways to learn merges and two to count pieces: one outcome, whatever the threads and the order of the texts."""

import os
import random
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, bpe_training, bpe_training_numpy, count_words, word_counting
from tinyllm.tokenizers.compiling import kernels_ready
from tinyllm.tokenizers.patterns import PATTERNS, splitter
from tinyllm.tokenizers.safe_cuts import cutter, last_cut, parts
from tinyllm.tokenizers.word_counting import without_the_rarest
from tinyllm.tokenizers.words import Words

ROOT = Path(__file__).parents[3]

AWKWARD = (
    "don't DON'T we'll 's 'll x's' o'clock l'été a'b''s 1a2b3 100000000 1,234.5 x+=1;/y//z http://a.b/c?d=e&f "
    "  \n\n  \n\t\tif x:\n        return\r\n\r\n  \r  end \n/path\n//x !\n/ !\n\n// -\n\u00a0\u3000 \u2028x\u0085y "
    "ſ's 'ſ 'S Été 日本語。\n日本語 \u3000漢字\n\u0301a a\u0301 a\u0301b Ⅷ² ²³¹ 🙂🙂\n🙂 "
    "\x1c\x1d\x00 \n \nA\n B\nC aB Ab AB\n"
    "camelCase XMLHttp iOS's _x __init__ a\nb a \nb a\n b a.\nb a.\n/b a\n'b a\n's "
)
pieces = st.dictionaries(
    st.one_of(st.text("ab", max_size=12), st.text("abcé\n 🙂", max_size=6), st.text(max_size=5)),
    st.one_of(st.integers(1, 3), st.integers(1, 10**12)),
    max_size=12,
)
awkward_text = st.lists(
    st.one_of(st.sampled_from(AWKWARD.split(" ")), st.sampled_from([" ", "\n", "'", "/", "  ", "\r\n", "s", "A", "1"])),
    max_size=30,
).map("".join)


def as_dict(words):
    return dict(words.items())


def counted(text, pattern):
    """The definition: cut the whole text, count."""
    return {piece.encode(): count for piece, count in Counter(splitter(PATTERNS[pattern])(text)).items()}


@pytest.fixture(autouse=True)
def little_is_enough(monkeypatch):
    """Kernels are used for the least text, which would not be worth loading them."""
    monkeypatch.setattr(word_counting, "A_FEW_PAGES", 0)
    monkeypatch.setattr(bpe_training, "A_LITTLE", 0)


@pytest.fixture(scope="module")
def compiled():
    if not kernels_ready(wait=True):
        pytest.skip("no Numba that compiles")


@pytest.fixture(params=["kernels", "plain"])
def way(request, monkeypatch):
    """With kernels and without."""
    if request.param == "plain":
        monkeypatch.setattr(word_counting, "kernels_ready", lambda wait=False: False)
        monkeypatch.setattr(bpe_training, "kernels_ready", lambda wait=False: False)
    else:
        request.getfixturevalue("compiled")
        for module in (word_counting, bpe_training):
            monkeypatch.setattr(module, "kernels_ready", lambda wait=False: kernels_ready(wait=True))
    return request.param


@settings(max_examples=300, deadline=None)
@given(counts=pieces, number=st.integers(0, 20))
@example(counts={"aaaa": 1}, number=3)
@example(counts={"aaaaa": 2, "aa": 1}, number=9)
@example(counts={"abababab": 1, "ba": 2}, number=9)
@example(counts={"": 3}, number=1)
@example(counts={}, number=1)
def test_the_three_ways_learn_the_same(compiled, counts, number):
    from tinyllm.tokenizers import bpe_training_numba

    words, told = Words.of(counts), []
    merges = bpe_training.learn_merges(words, number)
    assert bpe_training_numpy.learn_merges(words, number, lambda *state: told.append(state)) == merges
    assert told == [(done, number) for done in range(1, len(merges) + 1)]
    told.clear()
    assert bpe_training_numba.learn_merges(words, number, lambda *state: told.append(state)) == merges
    assert told == [(done, number) for done in range(1, len(merges) + 1)]


def test_the_three_ways_learn_the_same_from_much_text(compiled, monkeypatch):
    """Enough for thousands of ties, and for the arrays of pairs to grow."""
    from tinyllm.tokenizers import bpe_training_numba

    monkeypatch.setattr(bpe_training_numba, "ROOM", bpe_training_numba.BYTE_PAIRS + 600)

    draw = random.Random(0)
    syllables = ["ba", "ko", "the", "ing", "é", "ß", "日", "本", "aa", "aaaa", "12", "7", "'s", " "]
    words = Words.of(Counter("".join(draw.choices(syllables, k=draw.randint(1, 7))) for _ in range(30_000)))
    merges = bpe_training.learn_merges(words, 3000)
    assert len(merges) == 3000
    assert bpe_training_numpy.learn_merges(words, 3000) == merges
    assert bpe_training_numba.learn_merges(words, 3000) == merges


@settings(max_examples=300, deadline=None)
@given(text=awkward_text, pattern=st.sampled_from(list(PATTERNS)), size=st.integers(1, 20))
@example(text=AWKWARD, pattern="gpt2", size=1)
@example(text=AWKWARD, pattern="gpt4", size=1)
@example(text=AWKWARD, pattern="gpt4o", size=1)
def test_cutting_a_text_changes_no_piece(text, pattern, size):
    split = splitter(PATTERNS[pattern])
    cut = list(parts(text, 0, len(text), size))
    assert "".join(cut) == text
    assert [piece for part in cut for piece in split(part)] == split(text)


def test_a_text_is_really_cut():
    cut = list(parts(AWKWARD, 0, len(AWKWARD), 1))
    assert len(cut) > 50
    assert max(map(len, cut)) < 40


def test_cutting_elsewhere_would_change_pieces():
    """Places that are no safe ones, each with a text in which a cut there goes wrong."""
    for pattern, text, place in [
        ("gpt4o", "don't", 3),
        ("gpt2", "a\n\nb", 3),
        ("gpt4o", "!\n/b", 2),
        ("gpt4", "123456", 2),
        ("gpt2", "a  b", 3),
    ]:
        split = splitter(PATTERNS[pattern])
        assert split(text[:place]) + split(text[place:]) != split(text)
        assert last_cut(text, place - 1, place + 1) is None


@pytest.mark.parametrize(
    ("text", "start", "stop", "cut"), [("a b a b", 0, 7, 5), ("a b a b", 0, 3, 1), ("aaa", 0, 3, None)]
)
def test_the_last_safe_place(text, start, stop, cut):
    assert last_cut(text, start, stop) == cut


def test_a_safe_place_may_be_far_away():
    assert last_cut("a b a b" + "é" * 40_000, 0, 40_007) == 5
    assert list(parts("é" * 30 + "a b", 0, 33, 4)) == ["é" * 30 + "a", " b"]


def test_only_named_patterns_are_cut():
    assert cutter("gpt4") is last_cut
    assert cutter(r"\w+|\W+") is None


@settings(max_examples=60, deadline=None)
@given(text=awkward_text, pattern=st.sampled_from(list(PATTERNS)))
@example(text=AWKWARD, pattern="gpt2")
@example(text=AWKWARD, pattern="gpt4")
@example(text=AWKWARD, pattern="gpt4o")
def test_kernels_count_as_defined(compiled, text, pattern):
    machine = word_counting.machine_of(PATTERNS[pattern])
    words = word_counting.counted_by_machine([text.encode(), text.encode()], machine)
    expected = counted(text, pattern)
    assert as_dict(words) == {piece: 2 * count for piece, count in expected.items()}


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o", r"\w+|\W"])
def test_counting_depends_on_nothing_but_the_text(way, monkeypatch, pattern):
    texts = [AWKWARD * 20, "", "a", "<|endoftext|>", AWKWARD + "<|endoftext|>" + AWKWARD, *AWKWARD.split("\n")]
    split = splitter(PATTERNS.get(pattern, pattern))
    expected = Counter(
        piece.encode() for text in texts for part in text.split("<|endoftext|>") for piece in split(part)
    )
    assert as_dict(count_words(texts, pattern, threads=1)) == expected
    for seed, (chunk, threads) in enumerate([(1, 1), (1, 3), (100, 2), (1000, 2), (1 << 20, 3), (64, None)]):
        random.Random(seed).shuffle(texts)
        monkeypatch.setattr(word_counting, "CHUNK", chunk)
        words = count_words((text for text in texts), pattern, threads=threads)
        assert as_dict(words) == expected
        assert words.dropped == 0


def test_training_depends_on_nothing_but_the_text(way, monkeypatch):
    texts = [AWKWARD * 3, *AWKWARD.split(" "), "the cat and the hat " * 30]
    first = BPETokenizer.train(texts, 400)
    for threads in (1, 2, 3):
        random.Random(threads).shuffle(texts)
        monkeypatch.setattr(word_counting, "CHUNK", 50 * threads)
        words = count_words(texts, threads=threads)
        assert BPETokenizer.train_on_words(words, 400).merges == first.merges


def test_a_table_grows(compiled):
    from tinyllm.tokenizers.word_tables import WordTable

    table = WordTable(words=2, size=4)
    numbers = " ".join(map(str, range(3000)))
    for _ in range(2):
        table.count(word_counting.machine_of(PATTERNS["gpt2"]), numbers.encode(), np.array([len(numbers)]))
    table.add(Words.of({" 7": 5, "new": 1, "": 2}))
    expected = Counter({piece: 2 * count for piece, count in counted(numbers, "gpt2").items()})
    assert as_dict(table.words()) == expected + Counter({b" 7": 5, b"new": 1, b"": 2})
    assert table.num_bytes() == sum(len(word) + 1 for word in as_dict(table.words()))


def test_words_of_one_hash_are_told_apart(compiled):
    from tinyllm.tokenizers.word_tables import WordTable

    collision = {b"8yn0iYCKYHlIj4-BwPqk": 1, b"GReLUrM4wMqfg9yzV3KQ": 2}  # by FNV-1a with 64 bits
    table = WordTable()
    for _ in range(2):
        table.add(Words.of(collision))
    assert as_dict(table.words()) == {word: 2 * count for word, count in collision.items()}


def test_the_rarest_words_go_when_there_is_no_room():
    words = Words.of({"aa": 5, "b": 1, "ccc": 2, "d": 2, "e": 9})
    assert as_dict(without_the_rarest(words, 100)[0]) == as_dict(words)
    assert [word for word, _ in without_the_rarest(words, 11)[0].items()] == [b"aa", b"ccc", b"d", b"e"]
    # "ccc" would fit, but not "d" too, which is as frequent.
    kept, lost = without_the_rarest(words, 9)
    assert as_dict(kept) == {b"aa": 5, b"e": 9}
    assert lost == 5
    assert as_dict(without_the_rarest(words, 1)[0]) == {}


def test_room_bounds_what_is_held(way, monkeypatch):
    monkeypatch.setattr(word_counting, "CHUNK", 200)
    draw, outcomes = random.Random(0), []
    texts = ["the cat and the dog " + str(draw.random()) for _ in range(300)]
    for threads in (1, 2, 3):
        words = count_words(texts, room=600, threads=threads)
        assert len(words.content) + len(words) <= 600
        outcomes.append(as_dict(words))
        assert words.dropped + words.counts.sum() == sum(len(splitter(PATTERNS["gpt4"])(text)) for text in texts)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][b"the"] == 300  # what is frequent is counted exactly
    assert "occurrences of rare ones were not counted" in words.note()


def test_kernels_and_plain_python_drop_the_same(compiled, monkeypatch):
    monkeypatch.setattr(word_counting, "CHUNK", 200)
    draw = random.Random(0)
    texts = ["the cat and the dog " + str(draw.random()) for _ in range(300)]
    outcomes = []
    for ready in (True, False):
        monkeypatch.setattr(word_counting, "kernels_ready", lambda wait=False, ready=ready: ready)
        outcomes.append(as_dict(count_words(texts, room=600)))
    assert outcomes[0] == outcomes[1]


def test_training_says_that_words_were_dropped(monkeypatch):
    text = "the cat and the dog " * 20 + " ".join(map(str, range(500)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BPETokenizer.train([text], 260)
    monkeypatch.setattr(
        BPETokenizer.train.__func__.__globals__["count_words"], "__kwdefaults__", {"room": 300, "threads": 1}
    )
    with pytest.warns(UserWarning, match="more different pieces than there is room for: .* were not counted"):
        BPETokenizer.train([text], 260)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"room": 0}, "room is a number of bytes from 1 to"),
        ({"room": 2**40}, "room is a number of bytes from 1 to"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"texts": "one text"}, "texts must be a collection of texts"),
        ({"texts": [7]}, "expected a text .*got int"),
        ({"texts": ["a " * 9 + "\ud800"]}, r"lone surrogate '.ud800' \(character 18\)"),
        ({"pattern": "gpt5"}, "pattern must be one of"),
        ({"special_tokens": "<|x|>"}, "special_tokens must be a collection of names"),
    ],
)
def test_mistakes_in_counting(arguments, message, monkeypatch):
    monkeypatch.setattr(word_counting, "CHUNK", 4)  # the place is counted in the text, not in a part of it
    with pytest.raises(UserError, match=message):
        count_words(**{"texts": ["text"], **arguments})


@pytest.mark.parametrize("switch", [{"NUMBA_DISABLE_JIT": "1"}, {"WITHOUT": "numba"}], ids=["interpreted", "no Numba"])
def test_training_without_kernels(switch):
    """In a process of its own, where Numba may not compile or is not there."""
    code = (
        "import os, sys\n"
        "sys.modules |= {'numba': None} if os.environ.get('WITHOUT') else {}\n"
        "from tinyllm.tokenizers import BPETokenizer\n"
        "print(BPETokenizer.train(['the cat and the hat and the bat'], 263).merges)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | switch, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(BPETokenizer.train(["the cat and the hat and the bat"], 263).merges)
