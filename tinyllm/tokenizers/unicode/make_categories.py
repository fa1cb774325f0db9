"""Makes categories.txt, once: the general category of every character of one named version of Unicode.

`python -m tinyllm.tokenizers.unicode.make_categories`, with `unicodedata2==16.0.0` from the Python Package Index. The
version is the one whose letters, numbers and marks equal tiktoken 0.14's over all code points.
"""

import sys
import textwrap
from itertools import groupby
from pathlib import Path

VERSION = "16.0.0"
PATH = Path(__file__).with_name("categories.txt")
UNASSIGNED = "Cn"  # what is not listed


def ranges_by_category(category_of):
    """Dict category -> list of (first, last) code points, unassigned ones left out."""
    ranges = {}
    for category, code_points in groupby(range(sys.maxunicode + 1), key=lambda code: category_of(chr(code))):
        code_points = list(code_points)
        if category != UNASSIGNED:
            ranges.setdefault(category, []).append((code_points[0], code_points[-1]))
    return dict(sorted(ranges.items()))


def as_text(ranges):
    """What the file says: a paragraph a category, its ranges in hexadecimal."""
    paragraphs = [
        f"# General categories of Unicode {VERSION}, in inclusive ranges of code points; others are unassigned (Cn).\n"
        "# Made by make_categories.py, never edited by hand."
    ]
    for category, pairs in ranges.items():
        listed = " ".join(f"{first:X}" if first == last else f"{first:X}-{last:X}" for first, last in pairs)
        paragraphs.append("\n".join([category, *textwrap.wrap(listed, 120, break_on_hyphens=False)]))
    return "\n\n".join(paragraphs) + "\n"


def main():
    import unicodedata2

    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"unicodedata2 knows Unicode {unicodedata2.unidata_version}; install unicodedata2=={VERSION}")
    PATH.write_text(as_text(ranges_by_category(unicodedata2.category)), encoding="ascii")
    print(f"{PATH}: Unicode {VERSION}")


if __name__ == "__main__":
    main()
