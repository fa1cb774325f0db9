"""The machines that cut text, against the regular expressions they stand for."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import compiling
from tinyllm.tokenizers.patterns import MACHINES, PATTERNS, pattern_text, splitter
from tinyllm.tokenizers.unicode import categories
from tinyllm.tokenizers.unicode.categories import (
    LETTER,
    LOWER,
    MARK,
    NUMBER,
    SPACE,
    UPPER,
    VERSION,
    category_ranges,
    character_classes,
)

named = pytest.mark.parametrize("name", PATTERNS)
needs_numba = pytest.mark.skipif(not compiling.usable(), reason="Numba is not installed, or switched off")

# All that the patterns tell apart, and pairs of characters that differ by little.
TELLING = [*" \n\r\t'sStTlLvVeErRdDmM019a.,/é日\u0301\u00a0\u2028\u0085\x1c\u017f🙂Aǅʰ²Ⅷ\u0903"]
any_text = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from(TELLING), max_size=40),
    st.lists(st.sampled_from([*TELLING, "'re", "'LL", "'ſ", "  ", "word", "Word", "WORD", "12", "\r\n"])).map("".join),
)

SURROGATES = range(0xD800, 0xE000)
PRIVATE_OR_UNASSIGNED = [range(0xE000, 0xF900), range(0x40000, 0xE0000), range(0xF0000, 0x110000)]
"""Code points in bulk of which only their class is looked at; all others are tried in many contexts."""


def everyone_in_context():
    """Texts that hold every code point between others: (code points, text) of some thousands each."""
    bulk = {code for codes in PRIVATE_OR_UNASSIGNED for code in codes}
    rest = [code for code in range(0x110000) if code not in bulk and code not in SURROGATES]
    contexts = "a{0}a {0} {0}1{0}'{0}'{0}s A{0}b {0}{0}\n{0}\n {0}."
    for codes, context in ((rest, contexts), (sorted(bulk), "a{0}a")):
        for first in range(0, len(codes), 4096):
            some = codes[first : first + 4096]
            yield some, context, "".join(context.format(chr(code)) for code in some)


def cut_by_machine(name, text):
    """The pieces of a text by the compiled machine."""
    from tinyllm.tokenizers.splitting import cut

    data = text.encode()
    ends = np.empty(len(data), np.int64)
    number = cut(MACHINES[name], data, character_classes(), ends)
    starts = [0, *ends[: number - 1].tolist()] if number else []
    return [data[start:end].decode() for start, end in zip(starts, ends[:number].tolist(), strict=True)]


def classes_of_regex():
    """What the installed `regex` module takes every code point for, in our bits."""
    everything = "".join(map(chr, range(0x110000)))
    classes = np.zeros(0x110000, np.uint8)
    asked = {r"\p{L}": LETTER, r"\p{N}": NUMBER, r"\s": SPACE, r"\p{M}": MARK}
    asked |= {r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": UPPER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": LOWER}
    for expression, bit in asked.items():
        classes[[ord(character) for character in regex.findall(expression, everything)]] |= bit
    return classes


@named
@needs_numba
@settings(max_examples=1000, deadline=None)
@given(text=any_text)
def test_machine_equals_the_plain_splitter(name, text):
    assert cut_by_machine(name, text) == splitter(PATTERNS[name])(text)


@named
@needs_numba
def test_machine_equals_the_plain_splitter_over_all_code_points(name):
    split = splitter(PATTERNS[name])
    for codes, _, text in everyone_in_context():
        assert cut_by_machine(name, text) == split(text), f"near U+{codes[0]:04X}"


@named
def test_plain_splitter_equals_regex_where_the_tables_agree(name, capsys):
    differ = np.flatnonzero(
        classes_of_regex() != character_classes() & (LETTER | NUMBER | SPACE | MARK | UPPER | LOWER)
    )
    with capsys.disabled():
        print(f"\n{name}: our table and regex {regex.__version__} class {len(differ)} code points differently")
    split, compiled, differ = splitter(PATTERNS[name]), regex.compile(PATTERNS[name]), set(differ.tolist())
    compared = 0
    for codes, context, _ in everyone_in_context():
        agreeing = [code for code in codes if code not in differ]
        text = "".join(context.format(chr(code)) for code in agreeing)
        assert split(text) == compiled.findall(text), hex(codes[0])
        compared += len(agreeing)
    assert compared + len(differ) == 0x110000 - len(SURROGATES)


def test_names_of_others_mean_the_same_patterns():
    assert [pattern_text(name) for name in ("r50k", "cl100k", "o200k")] == list(PATTERNS.values())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("aBC dEf", ["a", "BC", " d", "Ef"]),
        ("HELLOworld It's WE'LL", ["HELLOworld", " It's", " WE'LL"]),
        ("日A \u0301AB\u0301 a/\n/b", ["日", "A", " \u0301AB\u0301", " a", "/\n/", "b"]),
    ],
)
def test_gpt4o_cuts_as_published(text, pieces):
    assert splitter(PATTERNS["gpt4o"])(text) == pieces


def test_the_table_is_of_the_version_it_names():
    ranges = category_ranges()
    assert VERSION in (Path(categories.__file__).with_name("categories.txt")).read_text().split("\n")[0]
    covered = sorted(pair for pairs in ranges.values() for pair in pairs)
    assert all(before[1] < after[0] for before, after in pairwise(covered))
    # Unicode 16.0 has 154,998 characters; beside them stand controls, surrogates and private use (its chapter 2).
    size = {category: sum(last - first + 1 for first, last in pairs) for category, pairs in ranges.items()}
    assert sum(size.values()) - size["Cc"] - size["Cs"] - size["Co"] == 154_998
    assert np.count_nonzero(character_classes() & SPACE) == 25
