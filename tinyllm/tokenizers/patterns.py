"""Cutting text into pieces that no token may cross: words with their leading space, numbers, punctuation, white space.

The named patterns are the published ones, letter for letter. What they call a letter, a number or a mark is decided by
the table in `unicode/`, so that pieces equal those of the original tokenizers whatever `regex` is installed; in a
pattern of the user's own the Unicode version of the `regex` package decides.
"""

import functools
import re

from tinyllm.errors import UserError
from tinyllm.tokenizers.unicode.categories import LETTER, LOWER, MARK, NUMBER, SPACE, UPPER, character_classes

CONTRACTIONS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)"""
PATTERNS = {
    # Radford et al. 2019, encoder.py of GPT-2 (tiktoken's gpt2 and r50k_base).
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    # OpenAI's cl100k_base: contractions in any case, numbers cut after three digits, line breaks kept together.
    "gpt4": CONTRACTIONS + r"""|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    # OpenAI's o200k_base: a word is cut where small letters end, keeps its marks and its contraction.
    "gpt4o": r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
    + CONTRACTIONS
    + r"""?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*""" + CONTRACTIONS + r"""?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
}
OTHER_NAMES = {"r50k": "gpt2", "cl100k": "gpt4", "o200k": "gpt4o"}
MACHINES = {name: number for number, name in enumerate(PATTERNS)}
"""The number by which kernels know the named patterns (`splitting.piece_end`)."""


def pattern_text(pattern):
    """The regular expression meant by a name ("gpt2", "gpt4", "gpt4o") or by the expression itself."""
    name = OTHER_NAMES.get(pattern, pattern) if isinstance(pattern, str) else pattern
    if name in PATTERNS:
        return PATTERNS[name]
    if not isinstance(pattern, str) or re.fullmatch(r"\w+", pattern):
        # A bare word is a mistyped name: as an expression it would match only itself.
        raise UserError(
            f"pattern must be one of {', '.join(PATTERNS)} or a regular expression of the regex module; got {pattern!r}"
        )
    return pattern


def machine_of(pattern):
    """The number of the machine that cuts as this expression does; None for an expression that is not a named one."""
    return next((MACHINES[name] for name, text in PATTERNS.items() if text == pattern), None)


def splitter(pattern):
    """A function from text to its list of pieces; joined, the pieces are the text again.

    pattern: a regular expression of the `regex` module. What it does not match becomes pieces too (as in Hugging
    Face's "isolated" split), so that no pattern can lose text.
    Errors: UserError for an expression that does not compile.
    """
    compiled = compiled_pattern(pattern)
    if machine_of(pattern) is not None:
        return functools.partial(split_by_our_classes, compiled)
    if compiled.groups == 0:

        def split(text):
            pieces = compiled.findall(text)
            return pieces if sum(map(len, pieces)) == len(text) else split_with_gaps(compiled, text)

        return split
    # With groups, findall returns what the groups caught and not the pieces.
    return lambda text: split_with_gaps(compiled, text)


def compiled_pattern(pattern):
    """The compiled expression; UserError if it is none."""
    import regex

    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression of the regex module: {error}") from None


def strict_splitter(pattern):
    """`splitter` for learning a vocabulary: text that the pattern leaves over is a UserError, and no surprise later."""
    if machine_of(pattern) is not None:
        return splitter(pattern)
    compiled = compiled_pattern(pattern)

    def split(text):
        pieces, end = [], 0
        for match in compiled.finditer(text):
            if match.start() > end:
                break
            pieces.append(match.group())
            end = match.end()
        if end < len(text):
            raise UserError(
                f"the pattern {pattern!r} does not cover its text: it leaves over {text[end]!r} (character {end} of "
                f"{text[:40]!r}…); give it an alternative for that, for instance {'(?s)' + pattern + '|.'!r}"
            )
        return [piece for piece in pieces if piece]

    return split


def split_with_gaps(compiled, text):
    """The matches of a compiled pattern and what stands between them, in order, without empty pieces."""
    pieces, end = [], 0
    for match in compiled.finditer(text):
        pieces += text[end : match.start()], match.group()
        end = match.end()
    return [piece for piece in (*pieces, text[end:]) if piece]


def split_by_our_classes(compiled, text):
    """The pieces of a named pattern, with characters classed by our table and not by that of `regex`.

    The pattern reads a stand-in text, in which each character beyond ASCII is replaced by one of the same class that
    was never classed otherwise; the pieces are as long in both.
    """
    if text.isascii():
        return compiled.findall(text)
    pieces, end = [], 0
    for stand_in in compiled.findall(text.translate(stand_ins())):
        start, end = end, end + len(stand_in)
        pieces.append(text[start:end])
    return pieces


class StandIns(dict):
    """Code point -> a character of the same class; found when first asked for."""

    # The classes of a pattern, each with a character that has had them since Unicode 1.1.
    LIKE = (
        (LETTER | UPPER | LOWER, "\u05d0"),
        (LETTER | UPPER, "\u00c4"),
        (LETTER | LOWER, "\u00e4"),
        (MARK, "\u0301"),
        (NUMBER, "\u00b2"),
        (SPACE, "\u3000"),
    )

    def __missing__(self, code):
        has = int(character_classes()[code])
        # ASCII is itself, and so is the long s: where case is ignored, it is an s.
        own = code < 0x80 or code == 0x017F
        like = (character for classes, character in self.LIKE if has & classes == classes)
        self[code] = chr(code) if own else next(like, "\u00a7")
        return self[code]


@functools.cache
def stand_ins():
    """The table for `str.translate`."""
    return StandIns()
