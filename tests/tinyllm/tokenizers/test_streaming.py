"""Text token by token equals text at once, wherever a token ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer


def streamed(tokenizer, ids, errors="replace"):
    decoder = tokenizer.stream_decoder(errors)
    return "".join([*map(decoder.push, ids), decoder.finish()])


@given(data=st.one_of(st.binary(), st.text().map(str.encode)))
def test_streaming_equals_decoding_for_any_bytes(data):
    tokenizer = ByteTokenizer()
    for errors in ("replace", "ignore"):
        assert streamed(tokenizer, data, errors) == tokenizer.decode(list(data), errors)


def test_streaming_equals_decoding_for_tokens_that_cut_characters():
    tokenizer = BPETokenizer.train(["🙂🙂🙃🙃 日本日本"], vocab_size=262)
    text = "日本🙂 é🙃"
    assert any(tokenizer.token_bytes(token)[:2] == b"\xf0\x9f" for token in range(256, 261))
    assert streamed(tokenizer, tokenizer.encode(text)) == text


def test_characters_come_as_soon_as_they_are_whole():
    decoder = ByteTokenizer().stream_decoder()
    assert [decoder.push(byte) for byte in "aé🙂".encode()] == ["a", "", "é", "", "", "", "🙂"]
    assert decoder.finish() == ""
    assert decoder.push(0xF0) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.push(ord("b")) == "b"  # it can be used again
    with pytest.raises(UserError, match="token id 999 is not in"):
        decoder.push(999)
