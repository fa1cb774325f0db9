"""The two tokenizers that need no learning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import ByteTokenizer, CharacterTokenizer


@given(text=st.text())
def test_bytes_are_their_own_ids(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text) == list(text.encode("utf-8"))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(data=st.binary())
def test_any_bytes_are_decoded(data):
    assert ByteTokenizer().decode_bytes(list(data)) == data


def test_the_byte_vocabulary():
    tokenizer = ByteTokenizer()
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (257, 256)
    assert ByteTokenizer(special_tokens=()).vocab_size == 256
    with pytest.raises(UserError, match="special token 'a' is also ordinary text"):
        ByteTokenizer(["a"])


def test_decoding_bytes_that_are_no_text():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0x61, 0xC3, 0x62]) == "a\ufffdb"
    assert tokenizer.decode([0x61, 0xC3, 0x62], errors="ignore") == "ab"
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode([0xC3], errors="strict")


@given(texts=st.lists(st.text(), min_size=1, max_size=3).filter(any))
def test_characters_are_sorted_and_round_trip(texts):
    tokenizer = CharacterTokenizer.train(texts)
    symbols = sorted(set("".join(texts)))
    assert [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)] == symbols
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocabulary_hash == CharacterTokenizer.train(reversed(texts)).vocabulary_hash


def test_mistakes_with_characters():
    tokenizer = CharacterTokenizer.train(["hello"], ["<|end|>"])
    assert tokenizer.special_tokens == {"<|end|>": 4}
    with pytest.raises(UserError, match=r"the character 'é' \(U\+00E9\) is not among the 4 .*leave it out, "):
        tokenizer.encode("hé")
    with pytest.raises(UserError, match="needs at least one character; give it some text"):
        CharacterTokenizer.train([""])
    with pytest.raises(UserError, match="texts must be a collection of texts"):
        CharacterTokenizer.train("hello")
    with pytest.raises(UserError, match="special token 'h' is also ordinary text"):
        CharacterTokenizer.train(["hello"], ["h"])
    for wrong in ("hh", ["ab"]):
        with pytest.raises(UserError, match="characters must be single and differ"):
            CharacterTokenizer(wrong)
