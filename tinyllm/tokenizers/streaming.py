"""Text that arrives token by token: a token may end in the middle of a character."""

import codecs


class StreamDecoder:
    """Turns token ids into text as they come and holds back the bytes of an unfinished character.

    The pieces returned by `push` and `finish`, joined, equal `tokenizer.decode` of all the ids.
    """

    def __init__(self, tokenizer, errors="replace", continuing=False):
        self._tokenizer = tokenizer
        self._drops_space = tokenizer.words_bring_spaces and not continuing
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token):
        """The text that token id `token` completes; "" where it ends inside a character."""
        content = self._tokenizer.token_bytes(token)
        if self._drops_space:
            content = content.removeprefix(b" ")
        self._drops_space = self._tokenizer.drops_space_after(token)
        return self._utf8.decode(content)

    def finish(self):
        """What is left at the end: U+FFFD for an unfinished character, else "". The decoder can then be used again."""
        self._drops_space = self._tokenizer.words_bring_spaces
        try:
            return self._utf8.decode(b"", final=True)
        finally:
            self._utf8.reset()  # "strict" raises for an unfinished character, and leaves it there
