"""What the tokenizers of other models ask for besides, words added later, and the files that others read."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, bpe_rungs, compiling, load_tokenizer
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER

TEXT = "Once upon a time, there was a little dog.\n\n It's 12345 Ġ 🙂 <|end|>"
TRAINED = BPETokenizer.train([TEXT], vocab_size=275, pattern="gpt2", special_tokens=["<|end|>", "<|Ġ x|>"])
PARTS = (TRAINED._ordinary, TRAINED.merges, "gpt2", TRAINED.special_tokens)
OPTIONS = [{"normalizer": "NFC"}, {"normalizer": "NFKD"}, {"add_prefix_space": True}, {"ignore_merges": True}]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# Options


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_are_saved_and_are_part_of_the_hash(options, tmp_path):
    ours = BPETokenizer(*PARTS, **options)
    ours.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded._options() == options
    assert loaded.vocabulary_hash == ours.vocabulary_hash != TRAINED.vocabulary_hash
    assert loaded.encode(TEXT) == ours.encode(TEXT)
    content = read(tmp_path / "tokenizer.json")
    del content["model"]["tinyllm"]  # as another project writes it
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert BPETokenizer.from_huggingface(tmp_path / "tokenizer.json").vocabulary_hash == ours.vocabulary_hash


def test_no_option_is_the_tokenizer_without_options():
    same = BPETokenizer(*PARTS, added_tokens={}, normalizer=None, add_prefix_space=False, ignore_merges=False)
    assert same.vocabulary_hash == TRAINED.vocabulary_hash


def test_normal_forms():
    ours = BPETokenizer(*PARTS, normalizer="NFC")
    assert ours.encode("e\u0301") == TRAINED.encode("é")
    assert ours.decode(ours.encode("e\u0301")) == "é"
    ids = ours.encode("e\u0301<|end|>\u0301", allowed_special="all")
    assert ids == [*TRAINED.encode("é"), TRAINED.special_tokens["<|end|>"], *TRAINED.encode("\u0301")]
    with pytest.raises(UserError, match="normalizer must be None or one of NFC, NFD, NFKC, NFKD; got 'nfc'"):
        BPETokenizer(*PARTS, normalizer="nfc")


def test_a_space_in_front():
    ours = BPETokenizer(*PARTS, add_prefix_space=True)
    for text in ("dog", " dog"):
        assert ours.encode(text) == TRAINED.encode(" dog")
    assert ours.encode("") == []
    end = ours.special_tokens["<|end|>"]
    assert ours.encode("a<|end|>b", allowed_special="all") == [*TRAINED.encode(" a"), end, *TRAINED.encode(" b")]
    with pytest.raises(UserError, match='add_prefix_space goes with the pattern "gpt2" only'):
        BPETokenizer(*PARTS[:2], r"[\s\S]+", {}, add_prefix_space=True)


def test_whole_pieces_before_merges():
    tokens = {token: bytes([byte]) for token, byte in enumerate(BYTE_ORDER)}
    a, b, c = (BYTE_ORDER.index(byte) for byte in b"abc")
    tokens |= {256: b"ab", 257: b"bc", 258: b"abc"}
    merges = [(b, c), (a, b)]  # no merges lead to abc
    assert BPETokenizer(tokens, merges, "gpt2", {}).encode("abc") == [a, 257]
    assert BPETokenizer(tokens, merges, "gpt2", {}, ignore_merges=True).encode("abc abcc") == [
        258,
        BYTE_ORDER.index(ord(" ")),
        *(a, 257, c),
    ]


# Added tokens

ADDED = TRAINED.with_tokens(added_tokens=["little", "little dog", "<|Ġ"])


def test_added_tokens_are_always_found():
    named = ADDED.added_tokens
    assert named == {"little": 275, "little dog": 276, "<|Ġ": 277}
    assert ADDED.encode("a little dog, little<|Ġ x|>") == [
        *TRAINED.encode("a "),
        276,
        *TRAINED.encode(", "),
        275,
        277,
        *TRAINED.encode(" x|>"),
    ]
    special = ADDED.encode("little<|Ġ x|>", allowed_special="all")
    assert special == [275, TRAINED.special_tokens["<|Ġ x|>"]]  # the longer of two that begin alike
    assert ADDED.encode("little dog", disallowed_special="all") == [276]  # they are no special tokens
    assert ADDED.decode([276, 275]) == "little doglittle"


@given(text=st.lists(st.sampled_from(["little", " dog", "lit", "tle", "<|", "Ġ", " x|>", "a"])).map("".join))
def test_round_trip_with_added_tokens(text):
    for allowed in ((), "all"):
        assert ADDED.decode(ADDED.encode(text, allowed_special=allowed)) == text


@pytest.mark.parametrize(
    "tokenizer",
    [TRAINED, ByteTokenizer(), ByteTokenizer([]), CharacterTokenizer.train([TEXT], ["<|end|>"])],
    ids=["bpe", "byte", "bytes only", "character"],
)
def test_every_kind_takes_more_tokens_and_keeps_them(tokenizer, tmp_path):
    before = tokenizer.vocabulary_hash
    more = tokenizer.with_tokens(["<|user|>"], ["time"]).with_tokens(["<|more|>"])
    assert more.added_tokens == {"time": tokenizer.vocab_size + 1}
    assert more.special_tokens == tokenizer.special_tokens | {
        "<|user|>": tokenizer.vocab_size,
        "<|more|>": tokenizer.vocab_size + 2,
    }
    assert (tokenizer.added_tokens, tokenizer.vocabulary_hash) == ({}, before)
    assert len({before, more.vocabulary_hash, tokenizer.with_tokens(["<|user|>"]).vocabulary_hash}) == 3
    more.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.vocabulary_hash == more.vocabulary_hash
    assert loaded.encode("a time, <|user|>", allowed_special="all") == more.encode(
        "a time, <|user|>", allowed_special="all"
    )
    assert tokenizer.with_tokens().vocabulary_hash == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"special_tokens": ["<|end|>"]}, "has the token '<.end.>' already"),
        ({"added_tokens": ["<|end|>"]}, "has the token '<.end.>' already"),
        ({"special_tokens": ["x", "x"]}, "named twice"),
        ({"special_tokens": ["<x>"], "added_tokens": ["<x>"]}, "added token '<x>' is also ordinary text"),
        ({"special_tokens": "<x>"}, "must be a collection of names"),
        ({"added_tokens": ["a"]}, "added token 'a' is also ordinary text"),
        ({"added_tokens": [""]}, "added token '' is also ordinary text"),
        ({"special_tokens": ["<\ud800>"]}, "lone surrogate"),
        ({"added_tokens": ["<\udfff>"]}, "lone surrogate"),
    ],
)
def test_mistakes_in_more_tokens(arguments, message):
    with pytest.raises(UserError, match=message):
        TRAINED.with_tokens(**arguments)


# tokenizer_config.json


def test_the_config_is_kept(tmp_path):
    template = "{% for m in messages %}\r\n{{ m['content'] }} é{% endfor %}"
    content = {
        "bos_token": {"content": "<|end|>", "lstrip": False},
        "eos_token": "<|end|>",
        "pad_token": None,
        "chat_template": template,
        "model_max_length": 5,
    }
    TRAINED.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    loaded = load_tokenizer(tmp_path)
    assert loaded.config == {"bos_token": "<|end|>", "eos_token": "<|end|>", "chat_template": template}
    assert loaded.vocabulary_hash == TRAINED.vocabulary_hash
    assert loaded.with_tokens(["<x>"]).config == loaded.config
    loaded.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").config == loaded.config
    assert read(tmp_path / "again" / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    (tmp_path / "chat_template.jinja").write_text("newer", newline="")
    assert load_tokenizer(tmp_path).config["chat_template"] == "newer"
    TRAINED.save(tmp_path)  # what lies there belongs to another tokenizer
    assert load_tokenizer(tmp_path).config == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "tokenizer_config.json is not valid JSON"),
        ("[]", "tokenizer_config.json must hold an object, got a list"),
        ('{"bos_token": 5}', "tokenizer_config.json: bos_token must be the name of a token, got 5"),
        ('{"eos_token": {"name": "x"}}', "eos_token must be the name of a token"),
        ('{"chat_template": 5}', "chat_template must be a text or a list, got 5"),
        ('{"chat_template": [{"name": "\\ud800"}]}', "tokenizer_config.json: the text has a lone surrogate"),
        ('{"bos_token": "a", "bos_token": "b"}', "the name 'bos_token' occurs twice in one object"),
    ],
)
def test_a_config_that_is_refused(text, message, tmp_path):
    TRAINED.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)


# GPT-2's files and rank files


def gpt2_files(tokenizer, folder):
    tokenizer.to_gpt2(folder / "encoder.json", folder / "vocab.bpe")
    return BPETokenizer.from_gpt2(folder / "encoder.json", folder / "vocab.bpe")


def test_gpt2_files_round_trip(tmp_path):
    assert gpt2_files(TRAINED, tmp_path).vocabulary_hash == TRAINED.vocabulary_hash
    (tmp_path / "vocab.bpe").write_bytes((tmp_path / "vocab.bpe").read_bytes().replace(b"\n", b"\r\n"))
    again = BPETokenizer.from_gpt2(tmp_path / "encoder.json", tmp_path / "vocab.bpe")
    assert again.vocabulary_hash == TRAINED.vocabulary_hash
    for refused in (
        BPETokenizer(*PARTS, ignore_merges=True),
        BPETokenizer(*PARTS[:2], "gpt4", {}),
        ADDED,
        BPETokenizer(*PARTS[:3], {"日": 300}),
    ):
        with pytest.raises(UserError, match="use save"):
            gpt2_files(refused, tmp_path / "refused")
        assert not (tmp_path / "refused").exists()


def test_rank_files_round_trip(tmp_path):
    TRAINED.to_tiktoken(tmp_path / "ours.tiktoken")
    again = BPETokenizer.from_tiktoken(tmp_path / "ours.tiktoken", "gpt2", TRAINED.special_tokens)
    assert again.vocabulary_hash == TRAINED.vocabulary_hash
    swapped = [TRAINED.merges[1], TRAINED.merges[0], *TRAINED.merges[2:]]
    for refused in (
        BPETokenizer(*PARTS, normalizer="NFC"),
        BPETokenizer(*PARTS, add_prefix_space=True),
        ADDED,
        BPETokenizer(TRAINED._ordinary, swapped, "gpt2", {}),
    ):
        with pytest.raises(UserError, match="use save"):
            refused.to_tiktoken(tmp_path / "refused.tiktoken")
        assert not (tmp_path / "refused.tiktoken").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of every file that a tokenizer can be read from, with how."""
    folder = tmp_path_factory.mktemp("whole")
    TRAINED.to_tiktoken(folder / "x.tiktoken")
    TRAINED.to_gpt2(folder / "encoder.json", folder / "vocab.bpe")
    CharacterTokenizer.train([TEXT]).with_tokens(["<x>"], ["the"]).save(folder / "character")
    ADDED.save(folder / "bpe")
    return {
        "x.tiktoken": (folder, lambda at: BPETokenizer.from_tiktoken(at / "x.tiktoken")),
        "encoder.json": (folder, lambda at: BPETokenizer.from_gpt2(at / "encoder.json", folder / "vocab.bpe")),
        "vocab.bpe": (folder, lambda at: BPETokenizer.from_gpt2(folder / "encoder.json", at / "vocab.bpe")),
        "bpe/tokenizer.json": (folder, lambda at: load_tokenizer(at / "bpe")),
        "character/tokenizer.json": (folder, lambda at: load_tokenizer(at / "character")),
    }


def refused_in_one_line(load, folder):
    """Whether the files are refused; any other exception than UserError escapes."""
    message = ""
    try:
        load(folder).encode("the dog 猫")
    except UserError as error:
        message = str(error)
    assert "\n" not in message, message
    return bool(message)


NAMES = ["x.tiktoken", "encoder.json", "vocab.bpe", "bpe/tokenizer.json", "character/tokenizer.json"]


@pytest.mark.parametrize("name", NAMES)
def test_files_that_end_anywhere_are_one_clear_error(name, files, tmp_path):
    folder, load = files[name]
    whole = (folder / name).read_bytes()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for end in range(0, len(whole) - 2, max(1, len(whole) // 300)):
        (tmp_path / name).write_bytes(whole[:end])
        refused = refused_in_one_line(load, tmp_path)
        assert refused or name in ("x.tiktoken", "vocab.bpe"), whole[:end][-30:]  # these may end after any line


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=3))
def test_changed_bytes_are_one_clear_error_or_none(name, files, tmp_path_factory, place, junk):
    folder, load = files[name]
    whole = (folder / name).read_bytes()
    place = int(place * len(whole))
    copy = tmp_path_factory.getbasetemp()
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(whole[:place] + junk + whole[place + len(junk) :])
    refused_in_one_line(load, copy)


def test_more_files_that_are_refused(tmp_path):
    encoder, merges, ranks = tmp_path / "encoder.json", tmp_path / "vocab.bpe", tmp_path / "x.tiktoken"
    TRAINED.to_gpt2(encoder, merges)
    whole = read(encoder)

    def refuse(message, vocabulary=whole, lines=None):
        encoder.write_text(vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary))
        merges.write_text("\n".join(lines or ["#version: 0.2", "a b"]), encoding="utf-8")
        with pytest.raises(UserError, match=message) as caught:
            BPETokenizer.from_gpt2(encoder, merges)
        assert str(tmp_path) in str(caught.value)

    lines = ["#version: 0.2", "", "a b c"]
    refuse(r"line 3 of the merges \('a b c'\): expected two tokens and one space", lines=lines)
    refuse(r"line 1 of the merges \('q '\): '' is not in the vocabulary", lines=["q "])
    refuse("merge 0 joins the ids .* but the vocabulary lacks them or what they make", lines=["q q"])
    refuse("merge 1 .* occurs twice", lines=["Ġ a", "Ġ a"])
    refuse("line 1 .* joins what no byte or merge makes", lines=["<|end|> a"])
    refuse("an id occurs twice in the vocabulary: 5", whole | {"é": 5, "&": 5})
    refuse("a token id must be a whole number .* got -1", whole | {"!": -1})
    refuse("a token id must be a whole number .* got 0.5", whole | {"!": 0.5})
    refuse("the vocabulary must be an object of tokens and ids, got a list", "[1, 2]")
    refuse("the name 'a' occurs twice in one object", '{"a": 0, "a": 1}')
    refuse(r"token '日' \(id 300\) is not in bytes", whole | {"日": 300})
    ranks.write_bytes(base64.b64encode(b"a") + b" 0\n\xff")
    with pytest.raises(UserError, match=r"x\.tiktoken is not UTF-8 text"):
        BPETokenizer.from_tiktoken(ranks)
    with pytest.raises(UserError, match=r"none\.tiktoken does not exist"):
        BPETokenizer.from_tiktoken(tmp_path / "none.tiktoken")


# The three ways of encoding

RUNGS = ["numpy", *(["numba"] if compiling.usable() else [])]


@pytest.mark.parametrize("rung", RUNGS)
@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.sampled_from(["little dog", "e\u0301", " the", "<|end|>", "日", "a", " "])).map("".join))
def test_every_rung_prepares_text_alike(rung, text):
    options = [{"normalizer": "NFC"}, {"add_prefix_space": True}, {"normalizer": "NFKD", "add_prefix_space": True}]
    plain = [*(BPETokenizer(*PARTS, **option) for option in options), BPETokenizer(*PARTS)]
    for ours in [*plain, *(tokenizer.with_tokens(added_tokens=["little dog", "e\u0301"]) for tokenizer in plain)]:
        for allowed in ((), "all"):
            ours.use_rung("python")
            expected = ours.encode(text, allowed_special=allowed)
            ours.use_rung(rung)
            assert ours.encode(text, allowed_special=allowed) == expected
            assert ours.encode_to_array(text, allowed_special=allowed).tolist() == expected
            assert [ids.tolist() for ids in ours.encode_batch([text] * 2, allowed_special=allowed)] == [expected] * 2


def test_whole_pieces_are_looked_up_by_kernels_too(monkeypatch):
    monkeypatch.setattr(bpe_rungs, "LARGE_TEXT", 1_000_000)  # so that it waits for them
    ours = BPETokenizer(*PARTS, ignore_merges=True)
    assert ours.encode("the dog " * 200_000)[:8] == TRAINED.encode("the dog the dog ")[:8]
    assert ours.rung == ("numba" if compiling.usable() else "python")


def test_long_whole_pieces_that_no_merges_make_stay_with_plain_python(monkeypatch):
    monkeypatch.setattr(bpe_rungs, "LARGE_TEXT", 1_000_000)
    tokens, merges, *_ = PARTS
    ours = BPETokenizer(tokens | {5000: b"x" * 32}, merges, "gpt2", {}, ignore_merges=True)
    text = "the dog," * 200_000 + "x" * 32
    assert ours.encode(text)[-1] == 5000
    assert ours.rung == "python"
    ours.use_rung("numpy")
    assert ours.encode(text[-100:])[-1] == 5000
    if compiling.usable():
        with pytest.raises(UserError, match="1 tokens of more than 31 bytes are made by no merges"):
            ours.use_rung("numba")
