"""A tokenizer comes back from its folder as it was, and a damaged folder is refused in one line."""

import base64
import contextlib
import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentencePieceBPETokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)

TEXT = "Once upon a time, there was a little dog.\n\n It's 12345 Ġ 🙂 <|end|>"
ALL = [
    BPETokenizer.train([TEXT], vocab_size=275, special_tokens=["<|end|>", "<|Ġ x|>"]),
    BPETokenizer.train([TEXT], vocab_size=270, pattern="gpt2"),
    BPETokenizer.train([TEXT], vocab_size=270, pattern=r"\w+ ?|\W"),
    ByteTokenizer(),
    ByteTokenizer([]),
    CharacterTokenizer.train([TEXT], ["<|end|>"]),
    CharacterTokenizer.train([TEXT], ["<|end|>"]).with_tokens(["<|more|>"], ["little dog", "time"]),
    SentencePieceBPETokenizer(
        dict(enumerate([*(f"<0x{byte:02X}>" for byte in range(256)), "▁", "d", "o", "g", "▁d", "og", "▁dog"], 3)),
        dict(enumerate([-0.5 * rank for rank in range(263)], 3)),
        special_tokens={"<unk>": 0, "<s>": 1, "<|end|>": 2},
    ),
    WordPieceTokenizer.train([TEXT], vocab_size=70, special_tokens=["[UNK]", "<|end|>", "[x]"]),
    WordPieceTokenizer.train([TEXT], vocab_size=70, special_tokens=["[UNK]", "<|end|>", "[x]"]).with_tokens(
        ["<|more|>"], ["a little", "dog time"]
    ),
]
ALL.append(BPETokenizer(ALL[1]._ordinary, ALL[1].merges, "gpt2", {}, normalizer="NFKC", add_prefix_space=True))
each = pytest.mark.parametrize("tokenizer", ALL, ids=lambda tokenizer: f"{tokenizer.kind}{tokenizer.vocab_size}")


def saved(tokenizer, folder):
    tokenizer.save(folder)
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


@each
def test_what_was_saved_is_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == ["tokenizer.json"]
    for loaded in (load_tokenizer(tmp_path / "new" / "folder"), type(tokenizer).load(str(tmp_path / "new" / "folder"))):
        assert type(loaded) is type(tokenizer)
        assert loaded.vocabulary_hash == tokenizer.vocabulary_hash
        assert (loaded.vocab_size, loaded.special_tokens) == (tokenizer.vocab_size, tokenizer.special_tokens)
        assert loaded.end_of_text == tokenizer.end_of_text
        for allowed in ((), "all"):
            assert loaded.encode(TEXT, allowed_special=allowed) == tokenizer.encode(TEXT, allowed_special=allowed)
        assert repr(loaded) == repr(tokenizer)


@each
def test_format_version_is_written(tokenizer, tmp_path):
    mark = saved(tokenizer, tmp_path)["model"]["tinyllm"]
    assert mark == {"format_version": 1, "kind": tokenizer.kind, "vocabulary_hash": tokenizer.vocabulary_hash}


@pytest.mark.parametrize("kind", ["bpe", "byte", "character"])
def test_files_of_format_version_1_still_load(kind):
    # Written by the first release; never write them anew.
    loaded = load_tokenizer(Path(__file__).parent / "version1" / kind)
    assert loaded.kind == kind
    assert loaded.decode(loaded.encode("the dog<|end|>", allowed_special="all")) == "the dog<|end|>"
    if kind == "bpe":
        assert [loaded.token_bytes(token) for token in loaded.encode("the dog")] == [b"the", b" dog"]


def test_a_wordpiece_file_of_format_version_1_still_loads():
    loaded = load_tokenizer(Path(__file__).parent / "version1" / "wordpiece")
    ids = loaded.encode("The dogs<|end|>", allowed_special="all")
    assert [loaded.vocabulary[token] for token in ids] == ["th", "##e", "do", "##g", "##s", "<|end|>"]
    assert loaded.decode(ids) == "the dogs <|end|>"


def test_the_hash_covers_all_that_decides_ids():
    pattern = BPETokenizer.train([TEXT], vocab_size=270, pattern="gpt4")
    others = [
        *ALL,
        pattern,
        BPETokenizer.train([TEXT], vocab_size=270, special_tokens=["<|end|>"]),
        BPETokenizer.train([TEXT], vocab_size=271),
        BPETokenizer(pattern._ordinary, pattern.merges[:-1], "gpt4", pattern.special_tokens),
        CharacterTokenizer.train([TEXT]),
    ]
    assert len({tokenizer.vocabulary_hash for tokenizer in others}) == len(others)
    assert BPETokenizer.train([TEXT], 270, pattern="gpt2").vocabulary_hash == ALL[1].vocabulary_hash
    named = BPETokenizer.train([TEXT], 270, pattern=ALL[1].pattern)
    assert named.vocabulary_hash == ALL[1].vocabulary_hash


@each
def test_a_failed_save_leaves_the_old_file(tokenizer, tmp_path, monkeypatch):
    old = saved(ByteTokenizer(["<|old|>"]), tmp_path)

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8")) == old
    assert os.listdir(tmp_path) == ["tokenizer.json"]


def write(folder, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def test_refused_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path)
    for content, message in (("{", "is not valid JSON"), ([], "it has no model"), ({"model": 3}, "it has no model")):
        write(tmp_path, content)
        with pytest.raises(UserError, match=message):
            load_tokenizer(tmp_path)


@each
def test_files_of_another_kind_or_version_or_content(tokenizer, tmp_path):
    content = saved(tokenizer, tmp_path)
    other = CharacterTokenizer if tokenizer.kind != "character" else BPETokenizer
    with pytest.raises(UserError, match=f"holds a {tokenizer.kind} tokenizer, not a {other.kind} one; load_tokenizer"):
        other.load(tmp_path)

    def refuse(message, **mark):
        changed = copy.deepcopy(content)
        changed["model"]["tinyllm"].update(mark)
        write(tmp_path, changed)
        with pytest.raises(UserError, match=message):
            load_tokenizer(tmp_path)

    refuse("has format_version 2, this tinyllm reads 1; update tinyllm", format_version=2)
    refuse(
        "of the kind 'unigram', known are bpe, byte, character, sentencepiece_bpe, wordpiece; update", kind="unigram"
    )
    refuse("was changed since it was written", vocabulary_hash="0" * 64)
    changed = copy.deepcopy(content)
    changed["added_tokens"].append({"id": tokenizer.vocab_size, "content": "<|new|>"})
    write(tmp_path, changed)
    with pytest.raises(UserError, match="was changed since it was written"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["model"].update(type="Unigram"),
            "byte-level BPE with model type 'BPE', got 'Unigram'",
        ),
        (
            lambda c: c["model"].update(type="WordPiece"),
            "holds a wordpiece tokenizer, not a bpe one; load_tokenizer",
        ),
        (lambda c: c.update(normalizer={"type": "Lowercase"}), "normalizer None, got {'type': 'Lowercase'}"),
        (lambda c: c["model"].update(ignore_merges=0.5), "with ignore_merges None, got 0.5, which tinyllm lacks"),
        (lambda c: c["model"].update(dropout=0.1), "with dropout None, got 0.1"),
        (lambda c: c.update(pre_tokenizer=None), "with pre-tokenizers"),
        (lambda c: c.update(pre_tokenizer={"type": "Metaspace"}), "with pre-tokenizers"),
        (
            lambda c: c["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
            r"add_prefix_space \(after a Split\) False, got True",
        ),
        (lambda c: c["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True), "use_regex .after a Split. False"),
        (lambda c: c["pre_tokenizer"]["pretokenizers"][0].update(invert=True), "behavior and invert of Split"),
        (lambda c: c["added_tokens"][0].update(lstrip=True), "added token '<.end.>' is matched by rules"),
        (lambda c: c["model"]["vocab"].update({"!": 1}), "an id occurs twice in the vocabulary"),
        (lambda c: c["model"]["vocab"].pop("Ġ"), r"merge 0 \('Ġ a'\) joins 'Ġ', which is not in the vocabulary"),
        (lambda c: c["model"]["vocab"].update({"!": -1}), "a token id must be a whole number"),
        (lambda c: c["model"]["vocab"].update({"日": 900}), r"token '日' \(id 900\) is not in bytes"),
        (lambda c: c["model"]["merges"].append("q q"), "merge 17 .* but the vocabulary lacks them or what they make"),
        (lambda c: c["model"]["merges"].append("q"), "merge 17 must be two tokens, got 'q'"),
        (lambda c: c["model"]["merges"].append(c["model"]["merges"][0]), "merge 17 .* occurs twice"),
        (lambda c: c["added_tokens"].append(c["added_tokens"][0]), "added token '<.end.>' occurs twice"),
        (lambda c: c["added_tokens"][0].update(id=3), "gives '<.end.>' the id 273, added_tokens 3"),
        (lambda c: c["model"]["vocab"].update({"!": 2**31}), "a token id must be a whole number"),
        (lambda c: c["model"]["vocab"].update({"!": "0"}), "a token id must be a whole number .* got '0'"),
        (
            lambda c: (c.update(normalizer={"type": "NFC"}), c["added_tokens"][0].update(normalized=True)),
            r"'<.end.>' is matched by rules \(normalized\)",
        ),
        (
            lambda c: c.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}),
            "use_regex .with add_prefix_space. True, got False",
        ),
        (lambda c: c["model"].pop("vocab"), "is damaged or not what it claims to be .KeyError"),
    ],
)
def test_other_projects_files_that_are_refused(change, message, tmp_path):
    content = saved(ALL[0], tmp_path)
    del content["model"]["tinyllm"]
    write(tmp_path, content)
    assert load_tokenizer(tmp_path).vocabulary_hash == ALL[0].vocabulary_hash
    change(content)
    write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        BPETokenizer.from_huggingface(tmp_path / "tokenizer.json")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def places(value, path=()):
    """The paths of all values in nested JSON, except the many entries of the vocabulary."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries)[:12]:
        yield from places(inner, (*path, key))


@each
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_one_clear_error(tokenizer, tmp_path, data):
    content = saved(tokenizer, tmp_path)
    *outer, last = data.draw(st.sampled_from([path for path in places(content) if path]))
    value = content
    for key in outer:
        value = value[key]
    damage = [None, True, -5, 7, 0.5, "x", "", "(", 10**30, [], {}, [1], {"a": 1}, [[]], [{}]]
    value[last] = data.draw(st.sampled_from(damage))
    write(tmp_path, content)
    with contextlib.suppress(UserError):
        # Whatever loads is the same tokenizer: what was damaged decides no ids.
        assert load_tokenizer(tmp_path).vocabulary_hash == tokenizer.vocabulary_hash


WHOLE = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))


def test_gpt2_and_tiktoken_files_that_are_refused(tmp_path):
    encoder, merges, ranks = tmp_path / "encoder.json", tmp_path / "vocab.bpe", tmp_path / "x.tiktoken"
    encoder.write_text('{"a": 0}')
    with pytest.raises(UserError, match=r"vocab\.bpe does not exist"):
        BPETokenizer.from_gpt2(encoder, merges)
    merges.write_text("#version: 0.2\na b\n")
    with pytest.raises(UserError, match=r"encoder.json with .*vocab.bpe: line 2 .*'b' is not in the vocabulary"):
        BPETokenizer.from_gpt2(encoder, merges)
    merges.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"vocab\.bpe is not UTF-8 text"):
        BPETokenizer.from_gpt2(encoder, merges)
    for lines, message in (
        ("IQ==", "x.tiktoken: line 1 .'IQ=='. is not a token in base64, one space and an id"),
        ("IQ== 0\n\nIQ== 1", "line 3 .* a token or an id occurs twice, or is none: the token b'!'"),
        ("IQ== 0\nIg== 0", "line 2 .* a token or an id occurs twice, or is none: the id 0"),
        (WHOLE + "ISEi 256", "line 257: the token b'!!\"' is not made of two earlier tokens"),
        ("IQ== 0", "expected a byte-level vocabulary, which has all 256 bytes; the byte 0x00 is missing"),
        ("IQ== 0\nI 1", "line 2: 'I' is not base64"),
        ("IQ== 0\nIQé= 1", "line 2: 'IQé=' is not base64"),
        ("IQ== 0\n= 1", "line 2"),
        ("IQ== 0\nIg== -1", "line 2 .* is not a token in base64"),
        ("IQ== 0\nIg== ١", "line 2 .* is not a token in base64"),
        (WHOLE + "ISI= 3000000000", "a token id must be a whole number"),
        ("!", "line 1 .'!'. is not a token in base64"),
        ("", "all 256 bytes; the byte 0x00 is missing"),
    ):
        ranks.write_text(lines)
        with pytest.raises(UserError, match=message):
            BPETokenizer.from_tiktoken(ranks)
