"""Cutting text into pieces that no token may cross: words with their leading space, numbers, punctuation, white space.

The two named patterns are the published ones, letter for letter, so that pieces equal those of the original
tokenizers. What counts as a letter is decided by the Unicode version of the `regex` package (a character newer than
another library's tables may be cut differently there).
"""

import re

from tinyllm.errors import UserError

PATTERNS = {
    # Radford et al. 2019, encoder.py of GPT-2 (tiktoken's gpt2 and r50k_base).
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    # OpenAI's cl100k_base: contractions in any case, numbers cut after three digits, line breaks kept together.
    "gpt4": r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
}


def pattern_text(pattern):
    """The regular expression meant by a name ("gpt2", "gpt4") or by the expression itself."""
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    if not isinstance(pattern, str) or re.fullmatch(r"\w+", pattern):
        # A bare word is a mistyped name: as an expression it would match only itself.
        raise UserError(
            f"pattern must be one of {', '.join(PATTERNS)} or a regular expression of the regex module; got {pattern!r}"
        )
    return pattern


def splitter(pattern):
    """A function from text to its list of pieces; joined, the pieces are the text again.

    pattern: a regular expression of the `regex` module. What it does not match becomes pieces too (as in Hugging
    Face's "isolated" split), so that no pattern can lose text.
    Errors: UserError for an expression that does not compile.
    """
    import regex

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression of the regex module: {error}") from None

    if compiled.groups == 0:

        def split(text):
            pieces = compiled.findall(text)
            return pieces if sum(map(len, pieces)) == len(text) else split_with_gaps(compiled, text)

        return split
    # With groups, findall returns what the groups caught and not the pieces.
    return lambda text: split_with_gaps(compiled, text)


def split_with_gaps(compiled, text):
    """The matches of a compiled pattern and what stands between them, in order, without empty pieces."""
    pieces, end = [], 0
    for match in compiled.finditer(text):
        pieces += text[end : match.start()], match.group()
        end = match.end()
    return [piece for piece in (*pieces, text[end:]) if piece]
