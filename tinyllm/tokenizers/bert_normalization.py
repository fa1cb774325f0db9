"""How BERT makes words of a text before WordPiece spells them.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", and its
published code. Steps and their order are those of Hugging Face's BertNormalizer and BertPreTokenizer, ids being equal.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from tinyllm.tokenizers.bert_characters import (
    ACCENTS,
    IDEOGRAPHS,
    INVISIBLE,
    NEW_CAPITALS,
    NOT_DECOMPOSED,
    PUNCTUATION,
    SPACES,
)


class Replacements(dict):
    """What each character becomes, for `str.translate`; worked out when a character first occurs.

    becomes: function from a character to the text that replaces it.
    """

    def __init__(self, becomes):
        self._becomes = becomes

    def __missing__(self, code):
        self[code] = self._becomes(chr(code))
        return self[code]


@dataclass(frozen=True)
class BertNormalization:
    """BERT's normalization. Each step can be left out; the names are those of Hugging Face's BertTokenizer.

    clean_text: take control characters, U+0000 and U+FFFD out, make every white space a space.
    tokenize_chinese_chars: put spaces around ideographs. strip_accents: decompose letters and drop their accents; None
    does as lowercase does. lowercase: letter by letter, so a Greek sigma at the end of a word is like any other.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    clean_text: bool = True

    @property
    def strips_accents(self):
        """Whether accents are dropped."""
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def words(self, text):
        """The list of words and punctuation marks of a text, normalized."""
        return [word for word in self.normalize(text).translate(PARTED).split(" ") if word]

    def normalize(self, text):
        """The text that is cut at white space and punctuation."""
        text = text.translate(self._cleaned)
        if self.strips_accents and not text.isascii():
            text = decomposed(text).translate(UNACCENTED)
        return lowered(text) if self.lowercase else text

    @cached_property
    def _cleaned(self):
        return Replacements(self._clean)

    def _clean(self, character):
        code = ord(character)
        if self.clean_text:
            if character in "\t\n\r":
                return " "
            if code in INVISIBLE or code == 0xFFFD:
                return ""
            if code in SPACES:
                return " "
        if self.tokenize_chinese_chars and code in IDEOGRAPHS:
            return f" {character} "
        return character


def part(character):
    """White space as a space, punctuation between two spaces."""
    if ord(character) in SPACES:
        return " "
    return f" {character} " if ord(character) in PUNCTUATION else character


PARTED = Replacements(part)
UNACCENTED = Replacements(lambda character: "" if ord(character) in ACCENTS else character)
SMALL = {capital: capital + distance for first, last, distance in NEW_CAPITALS for capital in range(first, last + 1)}
WHOLE = re.compile(f"([{''.join(f'{chr(first)}-{chr(last)}' for first, last in NOT_DECOMPOSED.ranges)}])")


def decomposed(text):
    """Canonical decomposition (NFD) as in Unicode 9.0: newer characters stay whole and in their place."""
    parts = WHOLE.split(text)
    parts[::2] = [unicodedata.normalize("NFD", part) for part in parts[::2]]
    return "".join(parts)


def lowered(text):
    """Every character in lower case by itself."""
    if text.isascii():
        return text.lower()
    # A capital sigma is the one letter whose small form hangs on where it stands.
    return text.replace("Σ", "σ").lower().translate(SMALL)
