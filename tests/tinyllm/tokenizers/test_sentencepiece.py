"""SentencePiece-style BPE against its definition, and llama2.c's file against every kind of damage."""

import json
import math
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, SentencePieceBPETokenizer, load_tokenizer
from tinyllm.tokenizers.sentencepiece import DUMMY_PREFIXES

SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
BYTES = {3 + byte: f"<0x{byte:02X}>" for byte in range(256)}
WORDS = ("▁t", "he", "▁the", "▁▁", "▁d", "og", "▁dog", "aa", "aaa", "é▁", "日本", *"▁thedogaé日本<0x4>1|s/")
PIECES = tuple(dict.fromkeys(WORDS))


def vocabulary(pieces, byte_fallback=True):
    """(pieces, scores) with the ids after the special tokens and the bytes, each piece better than the next."""
    known = dict(BYTES) if byte_fallback else {}
    known |= dict(enumerate(pieces, 259 if byte_fallback else 3))
    return known, {token: 0.0 if token < 259 and byte_fallback else -float(token) for token in known}


def tokenizer_of(pieces=PIECES, byte_fallback=True, **options):
    return SentencePieceBPETokenizer(*vocabulary(pieces, byte_fallback), special_tokens=SPECIAL, **options)


def naive_encode(text, scores):
    """Rescan after every join: the best-scoring piece, the leftmost of it. scores: dict piece -> float."""
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        joins = [
            (-scores[left + right], place)
            for place, (left, right) in enumerate(pairwise(symbols))
            if left in scores and right in scores and left + right in scores
        ]
        if not joins:
            return symbols
        place = min(joins)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]


tokenizer = tokenizer_of()


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.text("ab▁", min_size=2, max_size=4), max_size=12, unique=True),
    scores=st.lists(st.sampled_from([-1.0, -2.5, -3.0, 0.0, 1e9]), min_size=16, max_size=16),
    text=st.text("ab ", max_size=20),
)
def test_encoding_equals_the_definition(pieces, scores, text):
    # Equal scores are frequent here, and pieces that no training would make.
    pieces = dict(enumerate([*pieces, "a", "b", "▁"], 3))
    scores = dict(zip(pieces, scores, strict=False))
    ours = SentencePieceBPETokenizer(pieces, scores, special_tokens=SPECIAL)
    expected = naive_encode(text, {piece: scores[token] for token, piece in pieces.items()})
    assert [pieces[token] for token in ours.encode(text)] == expected


@given(text=st.one_of(st.text(), st.text("the dog aaé日本<0x41>", max_size=40)))
def test_round_trip_of_any_text(text):
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")  # the one letter that has another meaning


@pytest.mark.parametrize("prefix", ["always", "unless_spaced", "first_unless_spaced", "never"])
@given(text=st.one_of(st.text(), st.text("the dog  ▁aaé日本<0x41>", max_size=40)), has_bytes=st.booleans())
def test_the_bytes_of_the_tokens_are_those_of_the_text(prefix, text, has_bytes):
    pieces = {t: p for t, p in tokenizer._pieces.items() if has_bytes or not p.startswith("<0x")}
    ours = SentencePieceBPETokenizer(pieces, tokenizer._scores, special_tokens=SPECIAL, prefix=prefix)
    lengths, ids = ours.num_bytes_of_tokens(text), ours.encode(text)
    assert (len(lengths), sum(lengths)) == (len(ids), len(text.encode()))
    kept = [number for number, token in zip(lengths[1:], ids[1:], strict=False) if token in pieces]
    if has_bytes and "▁" not in text and text.isascii():
        assert kept == [len(ours.token_bytes(token)) for token in ids[1:]]


def test_the_bytes_of_tokens_by_hand():
    ids = tokenizer.encode("the dog ▁é猫")
    pieces = [tokenizer._pieces[token] for token in ids]
    sizes = dict(
        zip(
            ["".join(pieces[: n + 1]) for n in range(len(pieces))],
            tokenizer.num_bytes_of_tokens("the dog ▁é猫"),
            strict=True,
        )
    )
    assert list(sizes.values())[:2] == [3, 4]
    assert sum(sizes.values()) == 8 + 3 + 2 + 3


def test_ids_by_hand():
    ids = {piece: token for token, piece in tokenizer._pieces.items()}
    assert tokenizer.encode("the dog") == [ids["▁the"], ids["▁dog"]]
    assert tokenizer.encode(" the") == [ids["▁"], ids["▁the"]]
    assert tokenizer.encode("") == []
    assert tokenizer.encode("猫") == [ids["▁"], *(3 + byte for byte in "猫".encode())]
    assert tokenizer.encode("<0x41>") == [ids[letter] for letter in "▁<0x41>"]  # text is never a byte token
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (max(ids.values()) + 1, 2)  # </s>
    assert tokenizer.with_tokens(["<|endoftext|>"]).end_of_text == tokenizer.vocab_size
    assert tokenizer.token_bytes(3 + 0x41) == b"A"
    assert tokenizer.encode_to_array("the dog").dtype == np.int32


def test_the_dummy_prefix_is_dropped_where_it_was_put():
    the, dog = tokenizer.encode("the dog")
    assert tokenizer.decode([the, dog]) == "the dog"
    assert tokenizer.decode([dog], continuing=True) == " dog"
    assert tokenizer.decode([1, the, 2, 1, dog]) == "<s>the</s><s>dog"
    assert tokenizer.decode(np.array([1, the])) == "<s>the"
    text = "the<s> dog</s>the"
    assert tokenizer.decode(tokenizer.encode(text, allowed_special="all")) == text
    with pytest.raises(UserError, match="token id 9999 is not in"):
        tokenizer.decode([the, 9999])


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20), continuing=st.booleans())
def test_streaming_equals_decoding(ids, continuing):
    for prefix in DUMMY_PREFIXES:
        ours = tokenizer_of(prefix=prefix)
        for errors in ("replace", "ignore", "strict"):
            decoder = ours.stream_decoder(errors, continuing=continuing)
            try:
                expected = ours.decode(ids, errors, continuing=continuing)
            except UnicodeDecodeError:
                with pytest.raises(UnicodeDecodeError):
                    [*map(decoder.push, ids), decoder.finish()]
                continue
            assert "".join([*map(decoder.push, ids), decoder.finish()]) == expected
            # It can be used again, for a text from its beginning.
            assert "".join([*map(decoder.push, ids), decoder.finish()]) == ours.decode(ids, errors)


def test_a_strict_stream_that_failed_can_be_used_again():
    decoder = tokenizer.stream_decoder("strict")
    decoder.push(3 + 0xF0)
    with pytest.raises(UnicodeDecodeError):
        decoder.finish()
    assert decoder.push(tokenizer.encode("dog")[0]) == "dog"


@pytest.mark.parametrize(
    ("prefix", "encoded", "spaced", "special"),
    [
        ("always", "▁a", "▁▁a", "▁a1▁a"),
        ("unless_spaced", "▁a", "▁a", "▁a1▁a"),
        ("first_unless_spaced", "▁a", "▁a", "▁a1a"),
        ("never", "a", "▁a", "a1a"),
    ],
)
def test_where_the_dummy_prefix_stands(prefix, encoded, spaced, special):
    ours = tokenizer_of(pieces=("▁", "a"), prefix=prefix)
    pieces = ours._pieces | {1: "1"}
    for text, expected in (("a", encoded), (" a", spaced), ("a<s>a", special), ("", "")):
        ids = ours.encode(text, allowed_special="all")
        assert "".join(pieces[token] for token in ids) == expected
    assert ours.decode(ours.encode("a<s>a", allowed_special="all")) == "a<s>a"


def test_unknown_characters():
    ours = tokenizer_of(pieces=("▁", "a"), byte_fallback=False)
    assert ours.encode("a猫猫 猫a") == [3, 4, 0, 3, 0, 4]  # several in a row are one
    assert ours.decode(ours.encode("a猫猫a 猫 a")) == "a<unk>a <unk> a"  # the space after it is the text's own
    none = SentencePieceBPETokenizer({3: "▁"}, {3: 0.0}, special_tokens=SPECIAL, unknown=None)
    with pytest.raises(UserError, match=r"character '猫' \(U\+732B\) is not in this vocabulary.*byte fallback"):
        none.encode("猫")


def test_merges_in_order_instead_of_scores():
    pieces = {3: "▁", 4: "a", 5: "aa", 6: "aaa"}
    ours = SentencePieceBPETokenizer(pieces, merges=[(4, 5), (4, 4)], special_tokens=SPECIAL, prefix="never")
    assert ours.encode("aaa") == [5, 4]  # nobody ever listed that aa and a make aaa
    assert ours.encode("aaaa") == [5, 5]


def test_what_was_saved_is_loaded(tmp_path):
    seen = set()
    for prefix in DUMMY_PREFIXES:
        by_merges = SentencePieceBPETokenizer(
            {3: "▁", 4: "a", 5: "aa"}, merges=[(4, 4)], special_tokens=SPECIAL, prefix=prefix
        )
        added = tokenizer_of(prefix=prefix).with_tokens(added_tokens=["the dog"])
        for ours in (tokenizer_of(prefix=prefix), tokenizer_of(("▁", "a"), False, prefix=prefix), by_merges, added):
            ours.save(tmp_path)
            loaded = load_tokenizer(tmp_path)
            assert loaded.vocabulary_hash == ours.vocabulary_hash
            assert loaded.vocabulary_hash not in seen
            assert loaded.encode("the dog a<s>", allowed_special="all") == ours.encode(
                "the dog a<s>", allowed_special="all"
            )
            seen.add(loaded.vocabulary_hash)


def test_a_file_of_format_version_1_still_loads():
    # Written by the first release that had this kind; never write it anew.
    old = load_tokenizer(Path(__file__).parent / "version1" / "sentencepiece_bpe")
    assert type(old) is SentencePieceBPETokenizer
    ids = old.encode("the dog the<|end|>", allowed_special="all")
    shown = old._pieces | {token: name for name, token in (old.added_tokens | old.special_tokens).items()}
    assert [shown[token] for token in ids] == ["the dog", "▁", "▁the", "<|end|>"]
    assert old.config == {"chat_template": "{{ messages }}"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merges": [(1, 2)]}, "either the scores of the pieces or the merges"),
        ({"scores": None}, "either the scores of the pieces or the merges"),
        ({"prefix": "allways"}, "prefix must be one of always, .*; did you mean 'always'"),
        ({"unknown": "<unknown>"}, "the unknown token '<unknown>' is not among the special tokens"),
        ({"scores": {3: math.nan, 4: 0.0}}, r"the piece 'a' \(id 3\) needs a score, a finite number; got nan"),
        ({"scores": {3: 0.0}}, r"the piece 'b' \(id 4\) needs a score.* got None"),
        ({"pieces": {3: "a", 4: "a"}}, "the piece 'a' occurs twice, as 3 and 4"),
        ({"pieces": {3: "a", 4: ""}}, "the piece with the id 4 is empty"),
        ({"pieces": {3: "a", 4: "\ud800"}}, "lone surrogate"),
        ({"pieces": {3: "a", 4: "<s>"}}, "special token '<s>' is also ordinary text"),
        ({"pieces": {3: "a", -1: "b"}}, "a token id must be a whole number"),
        ({"pieces": {2: "a", 4: "b"}}, "special token '</s>' has the id 2 of another token"),
        ({"scores": None, "merges": [(3, 4)]}, "merge 0 joins 'a' and 'b' to what is no piece"),
        ({"pieces": {3: "a", 4: "aa"}, "scores": None, "merges": [(3, 3)] * 2}, "merge 1 .* occurs twice"),
    ],
)
def test_mistakes(arguments, message):
    right = {"pieces": {3: "a", 4: "b"}, "scores": {3: 0.0, 4: 0.0, 2: 0.0}, "special_tokens": SPECIAL}
    with pytest.raises(UserError, match=message):
        SentencePieceBPETokenizer(**{**right, **arguments})


# llama2.c's tokenizer.bin


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama2c") / "tokenizer.bin"
    tokenizer.to_llama2c(path)
    return path.read_bytes()


def loaded(data, folder):
    (folder / "tokenizer.bin").write_bytes(data)
    return SentencePieceBPETokenizer.from_llama2c(folder / "tokenizer.bin")


def test_llama2c_round_trip(binary, tmp_path):
    again = loaded(binary, tmp_path)
    assert again.vocabulary_hash == tokenizer.vocabulary_hash
    again.to_llama2c(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == binary
    assert struct.unpack_from("<ifi5s", binary) == (max(len(p.encode()) for p in (*WORDS, "<0x00>")), 0.0, 5, b"<unk>")


def test_llama2c_files_that_end_anywhere(binary, tmp_path):
    ends = {4}  # between two entries, where nothing shows that more should follow
    while max(ends) < len(binary):
        ends.add(max(ends) + 8 + struct.unpack_from("<i", binary, max(ends) + 4)[0])
    for end in range(0, len(binary), 5):
        if end not in ends:
            with pytest.raises(UserError, match=rf"^{tmp_path}/tokenizer\.bin: .*(fetch|damaged|another file)[^\n]*$"):
                loaded(binary[:end], tmp_path)
        elif end > max(ends) - 200:
            assert set(loaded(binary[:end], tmp_path)._pieces.items()) < set(tokenizer._pieces.items())


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), junk=st.binary(max_size=12))
def test_damaged_llama2c_files_are_one_clear_error(binary, tmp_path_factory, place, byte, junk):
    folder = tmp_path_factory.getbasetemp()
    place %= len(binary)
    for damaged in (binary[:place] + bytes([byte]) + binary[place + 1 :], binary[:place] + junk):
        message = ""
        try:
            loaded(damaged, folder).encode("the dog 猫")
        except UserError as error:  # no other exception
            message = str(error)
        assert "\n" not in message


def entry(text, score=0.0, length=None):
    return struct.pack("<fi", score, len(text) if length is None else length) + text


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (entry(b"ab", math.nan), "the score of entry 300 .at byte .* is nan"),
        (entry(b"ab", math.inf), "the score of entry 300 .at byte .* is inf"),
        (entry(b"ab", 0.0, 7), r"entry 300 \(at byte .*\) has length 7, not 1 to 6"),
        (entry(b"ab", 0.0, -1), "has length -1"),
        (entry(b"", 0.0), "has length 0"),
        (entry(b"ab", 0.0, 5), "the file ends within entry 300"),
        (b"\0\0", "the file ends within entry 300"),
        (entry(b"\xff"), "entry 300 is not UTF-8"),
        (entry(b" the"), "the piece '▁the' occurs twice"),
        (entry(b"<s>"), "special token '<s>' is also ordinary text"),
    ],
)
def test_llama2c_entries_that_are_refused(binary, tmp_path, tail, message):
    count = tokenizer.vocab_size
    with pytest.raises(UserError, match=message.replace("300", str(count))):
        loaded(binary + tail, tmp_path)


def test_llama2c_files_of_another_kind(binary, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.bin does not exist"):
        SentencePieceBPETokenizer.from_llama2c(tmp_path / "nothing.bin")
    with pytest.raises(UserError, match="expected the entries <unk>, <s> and </s> at the beginning"):
        loaded(struct.pack("<i", 9) + entry(b"a") + entry(b"b"), tmp_path)
    with pytest.raises(UserError, match="expected <0x00> as entry 3, got 'a'"):
        loaded(binary[:44] + entry(b"a"), tmp_path)
    with pytest.raises(UserError, match="expected a length of 4 bytes"):
        loaded(b"", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefix": "never"}, "cannot say that a tokenizer has added tokens or no dummy prefix"),
        ({"special_tokens": SPECIAL | {"<pad>": 999}}, "has the special tokens <unk>, <s>, </s> as 0, 1, 2"),
        ({"pieces": {**BYTES, 300: "a"}, "scores": dict.fromkeys([*BYTES, 300], 0.0)}, "cannot have gaps in the ids"),
        ({"pieces": {3: "a"}, "scores": {3: 0.0}}, "expected <0x00> as entry 3, got 'a'"),
        ({"scores": dict.fromkeys(BYTES, 0.1)}, "has float32 scores, and that of id 3 .0.1. is none"),
    ],
)
def test_what_llama2c_files_cannot_hold(change, message, tmp_path):
    right = {"pieces": BYTES, "scores": dict.fromkeys(BYTES, 0.0), "special_tokens": SPECIAL}
    with pytest.raises(UserError, match=message):
        SentencePieceBPETokenizer(**{**right, **change}).to_llama2c(tmp_path / "tokenizer.bin")
    assert not (tmp_path / "tokenizer.bin").exists()


def test_merges_in_their_order_become_scores(tmp_path):
    pairs = sorted(tokenizer._merges, key=lambda pair: (tokenizer._merges[pair], -pair[0]))  # as others order them
    ours = SentencePieceBPETokenizer(tokenizer._pieces, merges=pairs, special_tokens=SPECIAL)
    ours.to_llama2c(tmp_path / "tokenizer.bin")
    again = SentencePieceBPETokenizer.from_llama2c(tmp_path / "tokenizer.bin")
    assert again._pieces == tokenizer._pieces
    for text in ("the dog dog", "aaaaa  the é 日本 猫"):
        assert again.encode(text) == tokenizer.encode(text)
    # A way to make a piece is missing; the ways to make one piece stand around another's.
    aaa = [pair for pair in pairs if tokenizer._pieces[tokenizer._merges[pair][1]] == "aaa"]
    assert len(aaa) == 2
    for wrong in (pairs[1:], [aaa[0], *[pair for pair in pairs if pair not in aaa], aaa[1]]):
        refused = SentencePieceBPETokenizer(tokenizer._pieces, merges=wrong, special_tokens=SPECIAL)
        with pytest.raises(UserError, match="there are no scores from which these merges would follow"):
            refused.to_llama2c(tmp_path / "wrong.bin")
    assert not (tmp_path / "wrong.bin").exists()


# tokenizer.json


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(normalizer={"type": "Lowercase"}), "Llama 2's kind of BPE with normalizer"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "with normalizer None"),
        (lambda c: c.update(normalizer=None, pre_tokenizer={"type": "Digits"}), "pre-tokenizer 'Metaspace'"),
        (
            lambda c: c.update(
                normalizer=None, pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
            ),
            "split False, got True",
        ),
        (lambda c: c["decoder"]["decoders"].pop(), "with decoder"),
        (lambda c: c["model"].update(byte_fallback=False), "byte_fallback .for 256 bytes. True, got False"),
        (lambda c: c["model"].update(dropout=0.1), "with dropout None, got 0.1"),
        (lambda c: c["model"].update(unk_token="<none>"), "unknown token '<none>' is not among the special tokens"),
        (lambda c: c["model"]["merges"].append("zz a"), "joins 'zz', which is not in the vocabulary"),
        (lambda c: c["model"]["vocab"].update({"x": 3}), "an id occurs twice in the vocabulary: 3 is '<0x00>' and 'x'"),
        (lambda c: c["model"].update(scores=[[3, "x"]]), r"needs a score, a finite number; got 'x'"),
        (lambda c: c["model"].update(scores=7), "is damaged or not what it claims to be"),
    ],
)
def test_tokenizer_json_that_is_refused(change, message, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["model"]["tinyllm"], content["model"]["scores"]
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        SentencePieceBPETokenizer.from_huggingface(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_are_told_apart(tmp_path):
    tokenizer.save(tmp_path)
    with pytest.raises(UserError, match="holds a sentencepiece_bpe tokenizer, not a bpe one; load_tokenizer"):
        BPETokenizer.from_huggingface(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    del content["model"]["tinyllm"], content["model"]["scores"]  # as others write it
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    theirs = load_tokenizer(tmp_path)
    assert type(theirs) is SentencePieceBPETokenizer
    assert theirs.encode("the dog 猫 aaaa") == tokenizer.encode("the dog 猫 aaaa")
