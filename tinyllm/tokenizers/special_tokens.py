"""Named tokens: names that stand for one id each, beside the ordinary tokens. The special ones command the model."""

import re

from tinyllm.errors import UserError
from tinyllm.tokenizers.texts import check_text

END_OF_TEXT = "<|endoftext|>"


def number_special_tokens(names, first):
    """Dict name -> id for special tokens that follow the ordinary ones: `first`, first + 1, …"""
    if isinstance(names, str):
        raise UserError(f"special_tokens must be a collection of names, got the text {names!r}; write [{names!r}]")
    names = list(names)
    for name in names:
        check_text(name)
        if names.count(name) > 1:
            raise UserError(f"special token {name!r} is named twice; name each once")
    return {name: first + place for place, name in enumerate(names)}


def check_id(token):
    """UserError unless `token` can be an id."""
    if type(token) is not int or not 0 <= token < 2**31:
        raise UserError(f"a token id must be a whole number from 0 to 2^31 - 1 (an int32); got {token!r}")


def split_at(names, text):
    """`text` cut at every name in it: ordinary text at even places, the names at odd ones.

    Of two names that start alike the longer one is meant.
    """
    return re.split(f"({any_of(names)})", text) if names else [text]


def ordinary_spans(names, text):
    """Where ordinary text begins and ends, before, between and after the names in `text`; nothing is copied."""
    start = 0
    for match in re.finditer(any_of(names), text) if names else ():
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def any_of(names):
    """The regular expression for any of the names."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
