"""When text means a special token: only when the caller says so. The same for all three tokenizers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer

TEXT = "the dog <|end|> and <|endoftext|>"
SPECIAL = ["<|end|>", "<|endoftext|>", "<|end|><|end|>"]
ALL = [
    BPETokenizer.train([TEXT.replace("|", "")], vocab_size=265, special_tokens=SPECIAL),
    ByteTokenizer(SPECIAL),
    CharacterTokenizer.train([TEXT], SPECIAL),
]
each = pytest.mark.parametrize("tokenizer", ALL, ids=lambda tokenizer: tokenizer.kind)


@each
def test_special_text_is_ordinary_text_unless_allowed(tokenizer):
    special = set(tokenizer.special_tokens.values())
    assert not special & set(tokenizer.encode(TEXT))
    allowed = tokenizer.encode(TEXT, allowed_special="all")
    assert [token for token in allowed if token in special] == [tokenizer.special_tokens[name] for name in SPECIAL[:2]]
    one = tokenizer.encode(TEXT, allowed_special=["<|end|>"])
    assert special & set(one) == {tokenizer.special_tokens["<|end|>"]}
    for ids in (allowed, one):
        assert tokenizer.decode(ids) == TEXT


@each
def test_the_longer_of_two_special_tokens_is_meant(tokenizer):
    ids = tokenizer.encode("<|end|><|end|><|end|>", allowed_special="all")
    assert ids == [tokenizer.special_tokens["<|end|><|end|>"], tokenizer.special_tokens["<|end|>"]]


@each
def test_special_tokens_come_last_and_give_their_names(tokenizer):
    first = tokenizer.vocab_size - 3
    assert tokenizer.special_tokens == {name: first + place for place, name in enumerate(SPECIAL)}
    assert tokenizer.end_of_text == first + 1
    assert tokenizer.token_bytes(first) == b"<|end|>"
    assert tokenizer.decode([first + 1, first]) == "<|endoftext|><|end|>"


@each
def test_disallowed_special_tokens(tokenizer):
    for disallowed in ("all", ["<|end|>"], {"<|end|>"}):
        with pytest.raises(UserError, match=r"special token '<\|end.* is disallowed here; take it out .*"):
            tokenizer.encode("the <|end|>", disallowed_special=disallowed)
    # "all" means those that are not allowed; a name that is spelled out is meant.
    assert tokenizer.encode(TEXT, allowed_special="all", disallowed_special="all")
    with pytest.raises(UserError, match="is disallowed here"):
        tokenizer.encode(TEXT, allowed_special="all", disallowed_special=["<|end|>"])
    assert tokenizer.encode("the dog", disallowed_special="all") == tokenizer.encode("the dog")


@each
def test_mistakes(tokenizer):
    with pytest.raises(UserError, match=r"allowed_special must be \"all\" or a collection of names; got .*write \["):
        tokenizer.encode(TEXT, allowed_special="<|end|>")
    with pytest.raises(UserError, match=r"disallowed_special names 'x', but .* special tokens are: <\|end\|>, "):
        tokenizer.encode(TEXT, disallowed_special=["x"])
    with pytest.raises(UserError, match=r"expected a text .*got NoneType"):
        tokenizer.encode(None)
    with pytest.raises(UserError, match=r"lone surrogate '.udfff' .character 4.*repair it first"):
        tokenizer.encode("the \udfff")
    for wrong in (tokenizer.vocab_size, -1, None):
        with pytest.raises(UserError, match=f"token id {wrong} is not .*of size {tokenizer.vocab_size}; decode"):
            tokenizer.decode([0, wrong])
    with pytest.raises(UserError, match=r"token id \[0\] is not in"):
        tokenizer.decode([[0]])


def test_the_remedy_for_lone_surrogates_works():
    text = "the \udfff dog \ud83d\ude42"
    repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert ALL[1].decode(ALL[1].encode(repaired)) == "the \ufffd dog 🙂"


@given(text=st.text(alphabet="<|endoftxt>", max_size=60))
def test_allowed_special_tokens_split_as_the_definition_says(text):
    """From left to right, at each place the longest name that stands there."""
    tokenizer = ByteTokenizer(SPECIAL)
    text += "<|end|>" + text
    expected, place = [], 0
    while place < len(text):
        found = max((name for name in SPECIAL if text.startswith(name, place)), key=len, default=None)
        expected.append(tokenizer.special_tokens[found] if found else ord(text[place]))
        place += len(found or "x")
    assert tokenizer.encode(text, allowed_special="all") == expected
