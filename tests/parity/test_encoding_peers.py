"""The same ids as tiktoken and Hugging Face's `tokenizers` with real vocabularies, on real texts and on invented ones.

100,000 texts are drawn by a seeded generator, which is fast; hypothesis draws some thousands more, and shrinks what it
finds.
"""

import base64
import os
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import BPETokenizer
from tinyllm.tokenizers.patterns import PATTERNS

tiktoken = pytest.importorskip("tiktoken")
huggingface = pytest.importorskip("tokenizers")

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"no reference files in {REFERENCE} (TINYLLM_REFERENCE)"),
]
TEXTS = sorted((REFERENCE / "text").glob("*.txt"))

# As tiktoken spells them, with possessive quantifiers.
VOCABULARIES = {
    "r50k": ("gpt2", r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""),
    "cl100k": (
        "gpt4",
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
        r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
    ),
    # The vocabulary of o200k is not among the reference files; the pattern is, over the ranks of cl100k.
    "o200k pattern": ("gpt4o", PATTERNS["gpt4o"]),
}
INVENTED = 100_000
AT_ONCE = 1_000


@pytest.fixture(scope="module", params=VOCABULARIES)
def pair(request):
    """(ours, theirs) of one vocabulary; ours by its kernels."""
    name, pattern = VOCABULARIES[request.param]
    file = "r50k_base" if request.param == "r50k" else "cl100k_base"
    path = REFERENCE / "tokenizers" / "tiktoken" / f"{file}.tiktoken"
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, path.read_text().splitlines())}
    ours = BPETokenizer.from_tiktoken(path, pattern=name)
    ours.use_rung("numba")
    return ours, tiktoken.Encoding(request.param, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def character(draw):
    """Of all planes; telling ones more often."""
    kind = draw.random()
    if kind < 0.5:
        return draw.choice(
            " \n\r\t'sStTlLvVeErRdDmM0189.,/-_aàéßЖ日本🙂ſǅʰ²Ⅷ\u0301\u0903\u00a0\u2028\u3000\u0085\x00\x1c"
        )
    if kind < 0.8:
        return chr(draw.randrange(0x20, 0x7F))
    code = draw.randrange(0x3000) if kind < 0.9 else draw.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)  # lone surrogates are no text


def invented_text(draw, words):
    """Characters, runs of one, and words of real text, up to a few hundred bytes."""
    parts = []
    for _ in range(draw.randrange(12)):
        kind = draw.random()
        if kind < 0.5:
            parts.append("".join(character(draw) for _ in range(draw.randrange(12))))
        elif kind < 0.7:
            parts.append(character(draw) * draw.randrange(40))
        else:
            parts.append(draw.choice(words))
    return "".join(parts)


def real_words():
    text = (REFERENCE / "text" / "taylorswift.txt").read_text(encoding="utf-8")
    return [" " + word for word in text.split()]


def assert_alike(pair, text):
    ours, theirs = pair
    assert ours.encode(text) == theirs.encode_ordinary(text)


def test_reference_texts(pair):
    assert TEXTS
    ours, theirs = pair
    for path in TEXTS:
        text = path.read_bytes().decode("utf-8", "replace")
        ids = ours.encode_to_array(text)
        assert ids.tolist() == theirs.encode_ordinary(text), path.name
        assert ours.decode(ids) == text


def test_a_hundred_thousand_invented_texts(pair):
    ours, theirs = pair
    draw, words = random.Random(2026), real_words()
    for _ in range(INVENTED // AT_ONCE):
        texts = [invented_text(draw, words) for _ in range(AT_ONCE)]
        expected = theirs.encode_ordinary_batch(texts, num_threads=2)
        for text, ids, theirs_ids in zip(texts, ours.encode_batch(texts), expected, strict=True):
            assert ids.tolist() == theirs_ids, ascii(text)


@settings(max_examples=2000, deadline=None)
@given(text=st.one_of(st.text(), st.text(st.sampled_from([*" \n\r\t'sSlL19.,/aÀ日\u0301\u00a0🙂ſ"]))))
@example(text="\n ")
@example(text="".join(map(chr, range(0xA0))))
def test_any_text(pair, text):
    assert_alike(pair, text)


@pytest.mark.parametrize("letter", ["a", "=", " ", "\n", "日", "7", "\u0301", "\0"])
def test_a_megabyte_of_one_character(pair, letter):
    ours, theirs = pair
    text = letter * (1_000_000 // len(letter.encode()))
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    if theirs.name == "o200k pattern" and letter.isspace():
        # tiktoken's engine gives up on its own pattern here: too many steps back.
        text = letter * 100_000
        ids = ours.encode(text)
    assert ids == theirs.encode_ordinary(text)


def test_huggingface_agrees_about_gpt2():
    path = REFERENCE / "tokenizers" / "gpt2" / "hf_tokenizer.json"
    ours, theirs = BPETokenizer.from_huggingface(path), huggingface.Tokenizer.from_file(str(path))
    ours.use_rung("numba")
    for text_path in TEXTS:
        text = text_path.read_bytes().decode("utf-8", "replace")
        assert ours.encode(text, allowed_special="all") == theirs.encode(text).ids, text_path.name
    draw, words = random.Random(5), real_words()
    # Below U+0250 all letters are old: beyond, the library goes by another version of Unicode.
    texts = ["".join(c for c in invented_text(draw, words) if ord(c) < 0x250) for _ in range(5_000)]
    for text, ids in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text) == ids.ids, ascii(text)
