"""What counts as a text: a str that UTF-8 can write."""

from tinyllm.errors import UserError


def check_text(text):
    """UserError unless `text` is a string that UTF-8 can write."""
    if not (isinstance(text, str) and text.isascii()):
        utf8(text)


def utf8(text):
    """The bytes of a text in UTF-8; UserError unless it is a string that UTF-8 can write."""
    check_type(text)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text has a lone surrogate {text[error.start]!r} (character {error.start}), which UTF-8 cannot write; "
            'repair it first, for instance with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        ) from None


def check_type(text):
    """UserError unless `text` is a string."""
    if not isinstance(text, str):
        raise UserError(f"expected a text (str), got {type(text).__name__}; bytes must be decoded first")


def check_texts(texts):
    """The texts to train on, one by one, each checked; UserError where one string stands for the collection."""
    for text in each_text(texts):
        check_text(text)
        yield text


def each_text(texts):
    """The texts to train on, one by one, each a str; whether UTF-8 can write it, remains to be seen."""
    if isinstance(texts, (str, bytes)):
        raise UserError("texts must be a collection of texts, got a single one; write [text]")
    for text in texts:
        check_type(text)
        yield text
