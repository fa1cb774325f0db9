"""The published split patterns as small machines over UTF-8 bytes, for kernels to call.

Each function is to be read beside its regular expression: the alternatives stand as comments over the lines that try
them, in the same order. A machine is told where a piece begins and answers where it ends; it looks at each character
about once, and a character below 128 is its own byte.

`text` is valid UTF-8, as bytes or a uint8 array of `length` bytes; positions are int64; `classes` comes from
`unicode.categories.character_classes`. Importing this needs Numba; `patterns.splitter` is the plain Python that says
the same.
"""

import numba
import numpy as np

from tinyllm.tokenizers.compiling import kernel
from tinyllm.tokenizers.patterns import MACHINES
from tinyllm.tokenizers.unicode.categories import LETTER, LOWER, MARK, NEWLINE, NUMBER, SPACE, SYMBOL, UPPER

part = numba.njit(error_model="numpy")
"""A piece of a kernel: compiled with the kernel that calls it, never by itself."""

TEXT = numba.types.Bytes(numba.uint8, 1, "C", readonly=True)
CLASSES = numba.uint8[::1]
int64 = numba.int64

GPT2, GPT4, GPT4O = MACHINES["gpt2"], MACHINES["gpt4"], MACHINES["gpt4o"]
BLANK, APOSTROPHE, SLASH, LINE_FEED, CARRIAGE_RETURN = ord(" "), ord("'"), ord("/"), ord("\n"), ord("\r")
AS_WRITTEN, ANY_CASE = np.uint8(0), np.uint8(0x20)  # the bit by which an ASCII letter differs from its capital
NO_BREAKS = np.uint8(0)  # the class of no character
D, E, L, M, R, S, T, V = map(ord, "delmrstv")
LONG_S = tuple("\u017f".encode())  # ſ, which is an s where case is ignored


@part
def piece_end(machine, text, start, length, classes):
    """Where the piece that begins at `start` (< length) ends. machine: one of `patterns.MACHINES`."""
    if machine == GPT2:
        return gpt2_end(text, start, length, classes)
    if machine == GPT4:
        return gpt4_end(text, start, length, classes)
    return gpt4o_end(text, start, length, classes)


@part
def gpt2_end(text, start, length, classes):
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    # 's|'t|'re|'ve|'m|'ll|'d
    end = contraction_end(text, start, length, AS_WRITTEN)
    if end > start:
        return end
    body = start + 1 if byte_at(text, start) == BLANK else start
    if body < length:
        first = class_at(text, body, classes)
        # ` ?\p{L}+`
        if first & LETTER:
            return run_end(text, body, length, classes, LETTER)
        # ` ?\p{N}+`
        if first & NUMBER:
            return run_end(text, body, length, classes, NUMBER)
        # ` ?[^\s\p{L}\p{N}]+`
        if first & SYMBOL:
            return run_end(text, body, length, classes, SYMBOL)
    # \s+(?!\S)|\s+
    return white_space_end(text, start, length, classes, NO_BREAKS)


@part
def gpt4_end(text, start, length, classes):
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|…

    …|\s+(?!\S)|\s+
    """
    # (?i:'s|'t|'re|'ve|'m|'ll|'d)
    end = contraction_end(text, start, length, ANY_CASE)
    if end > start:
        return end
    first = class_at(text, start, classes)
    # [^\r\n\p{L}\p{N}]?\p{L}+
    word = start if first & (NEWLINE | LETTER | NUMBER) else after(text, start)
    if word < length and class_at(text, word, classes) & LETTER:
        return run_end(text, word, length, classes, LETTER)
    # \p{N}{1,3}
    if first & NUMBER:
        return three_numbers_end(text, start, length, classes)
    # ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    body = start + 1 if byte_at(text, start) == BLANK else start
    if body < length and class_at(text, body, classes) & SYMBOL:
        end = run_end(text, body, length, classes, SYMBOL)
        while end < length and byte_at(text, end) in (CARRIAGE_RETURN, LINE_FEED):
            end += 1
        return end
    # \s*[\r\n]+|\s+(?!\S)|\s+
    return white_space_end(text, start, length, classes, NEWLINE)


@part
def gpt4o_end(text, start, length, classes):
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|…

    …|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|…
    …|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
    """
    first = class_at(text, start, classes)
    # The first two alternatives.
    end = cased_word_end(text, start, length, classes, first)
    if end > start:
        return contraction_end(text, end, length, ANY_CASE)
    # \p{N}{1,3}
    if first & NUMBER:
        return three_numbers_end(text, start, length, classes)
    # ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
    body = start + 1 if byte_at(text, start) == BLANK else start
    if body < length and class_at(text, body, classes) & SYMBOL:
        end = run_end(text, body, length, classes, SYMBOL)
        while end < length and byte_at(text, end) in (CARRIAGE_RETURN, LINE_FEED, SLASH):
            end += 1
        return end
    # \s*[\r\n]+|\s+(?!\S)|\s+
    return white_space_end(text, start, length, classes, NEWLINE)


@part
def cased_word_end(text, start, length, classes, first):
    """The end of capitals and then small letters, with one other character before; `start` if there are none.

    Letters without case (Lm, Lo) and marks (M) count as both. first: the classes of the character at `start`.
    """
    word = start if first & (NEWLINE | LETTER | NUMBER) else after(text, start)
    at, both_end = word, start
    while at < length:
        kind = class_at(text, at, classes)
        if not kind & UPPER:
            break
        at = after(text, at)
        if kind & LOWER:
            both_end = at
    small_end = run_end(text, at, length, classes, LOWER)
    # [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
    if small_end > at:
        return small_end
    if both_end > start:  # the capitals give back what follows the last that may also be a small letter
        return both_end
    if first & MARK:  # nothing stands before the word: the mark is its small letter
        return word
    # [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*
    return at if at > word else start


@part
def contraction_end(text, start, length, fold):
    """The end of 's|'t|'re|'ve|'m|'ll|'d at `start`, AS_WRITTEN or in ANY_CASE; `start` where there is none."""
    if start + 1 >= length or byte_at(text, start) != APOSTROPHE:
        return start
    first = byte_at(text, start + 1) | fold
    if first in (S, T, M, D):
        return start + 2
    if start + 2 >= length:
        return start
    if fold and byte_at(text, start + 1) == LONG_S[0] and byte_at(text, start + 2) == LONG_S[1]:
        return start + 3
    second = byte_at(text, start + 2) | fold
    if (second == E and first in (R, V)) or (second == L and first == L):
        return start + 3
    return start


@part
def three_numbers_end(text, start, length, classes):
    r"""\p{N}{1,3}, where `start` is a number."""
    end = after(text, start)
    for _ in range(2):
        if end >= length or not class_at(text, end, classes) & NUMBER:
            break
        end = after(text, end)
    return end


@part
def white_space_end(text, start, length, classes, breaks):
    r"""\s*[\r\n]+|\s+(?!\S)|\s+, where `start` is white space; breaks: NEWLINE, or NO_BREAKS without the first."""
    at, last, break_end = start, start, start
    while at < length:
        kind = class_at(text, at, classes)
        if not kind & SPACE:
            break
        last, at = at, after(text, at)
        if kind & breaks:
            break_end = at
    if break_end > start:
        return break_end
    # The last of several is left to the word that follows.
    return at if at == length or last == start else last


@part
def run_end(text, at, length, classes, wanted):
    """Where the run of characters of the class `wanted` that begins at `at` ends."""
    while at < length and class_at(text, at, classes) & wanted:
        at = after(text, at)
    return at


@part
def class_at(text, at, classes):
    """The classes of the character whose first byte is at `at`."""
    byte = byte_at(text, at)
    if byte < 0x80:
        return classes[byte]
    if byte < 0xE0:
        return classes[(byte & 0x1F) << 6 | follower(text, at + 1)]
    if byte < 0xF0:
        return classes[(byte & 0x0F) << 12 | follower(text, at + 1) << 6 | follower(text, at + 2)]
    return classes[
        (byte & 0x07) << 18 | follower(text, at + 1) << 12 | follower(text, at + 2) << 6 | follower(text, at + 3)
    ]


@part
def after(text, at):
    """Where the character after the one at `at` begins."""
    byte = byte_at(text, at)
    if byte < 0x80:
        return at + 1
    if byte < 0xE0:
        return at + 2
    return at + 3 if byte < 0xF0 else at + 4


@part
def follower(text, at):
    """The six bits that a byte after the first has of its character."""
    return byte_at(text, at) & np.uint8(0x3F)


@part
def byte_at(text, at):
    """The byte at `at`, which is not negative: Numba need not ask whether it counts from the end."""
    return text[np.uint64(at)]


@kernel(int64(int64, TEXT, CLASSES, int64[::1]))
def cut(machine, text, classes, ends):
    """Cut a whole text; returns the number of pieces. ends: (len(text),), the first so many become where each ends."""
    at, pieces = int64(0), int64(0)
    while at < len(text):
        at = piece_end(machine, text, at, len(text), classes)
        ends[pieces] = at
        pieces += 1
    return pieces
