"""The table made by make_categories.py, and what split patterns ask of a character, in one byte each."""

import functools
from pathlib import Path

import numpy as np

VERSION = "16.0.0"
"""Of Unicode: tiktoken 0.14 cuts by the same, whatever Python or `regex` are installed."""

CODE_POINTS = 0x110000

# One bit for each class of characters that a split pattern names. NumPy's numbers and not Python's: for each value of
# the latter Numba would compile a function anew.
LETTER = np.uint8(1)  # \p{L}
NUMBER = np.uint8(2)  # \p{N}
SPACE = np.uint8(4)  # \s
NEWLINE = np.uint8(8)  # [\r\n]
SYMBOL = np.uint8(16)  # [^\s\p{L}\p{N}]: punctuation, marks, control characters, all that is unassigned
UPPER = np.uint8(32)  # [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
LOWER = np.uint8(64)  # [\p{Ll}\p{Lm}\p{Lo}\p{M}]
MARK = np.uint8(128)  # \p{M}

CONTROLS_THAT_SPACE = [*range(0x09, 0x0E), 0x85]
"""White space beside the categories Zs, Zl and Zp: tab, line feed, …, carriage return, next line."""


@functools.cache
def category_ranges():
    """Dict general category ("Lu", "Nd", …) -> list of (first, last) code points that have it."""
    text = Path(__file__).with_name("categories.txt").read_text(encoding="ascii")
    ranges = {}
    for paragraph in text.split("\n\n")[1:]:
        category, *listed = paragraph.split()
        ends = [pair.split("-") for pair in listed]
        ranges[category] = [(int(pair[0], 16), int(pair[-1], 16)) for pair in ends]
    return ranges


@functools.cache
def character_classes():
    """The classes of every code point: uint8 array (0x110000,) of the bits above. Made once; never write to it."""
    cases = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": UPPER | LOWER, "Lo": UPPER | LOWER}
    classes = np.full(CODE_POINTS, SYMBOL, np.uint8)
    for category, ranges in category_ranges().items():
        match category[0]:
            case "L":
                bits = LETTER | cases[category]
            case "N":
                bits = NUMBER
            case "Z":
                bits = SPACE
            case "M":
                bits = SYMBOL | MARK | UPPER | LOWER
            case _:
                bits = SYMBOL
        for first, last in ranges:
            classes[first : last + 1] = bits
    classes[CONTROLS_THAT_SPACE] = SPACE
    classes[[ord("\r"), ord("\n")]] |= NEWLINE
    return classes
