"""Where a long text can be cut in two so that a tokenizer's pieces stay what they are in the whole.

Memory stays bounded and cores share the work only if a text can be read in parts. Such a place must be a border
between pieces, whatever stands around it, and no decision before it may look across it. Two kinds of place are so for
the patterns `gpt2`, `gpt4` and `gpt4o` (and for whoever cuts at white space and punctuation):

1. Between an ASCII letter and an ASCII space, line break, tab or punctuation mark other than an apostrophe. All that
   can contain a letter is a run of letters, perhaps with one character before it and a contraction after it; it ends
   here. The only look ahead, `\\s+(?!\\S)`, is from white space to the next character, and the last one is a letter.
2. Between a line feed that follows visible text and visible text other than `/`. In its piece a line feed is followed
   by nothing else, except by `/` in `gpt4o`. As it is the only white space before the cut, `\\s+(?!\\S)|\\s+` takes it
   whether text follows or not.

What is white space is decided by Python here, which counts a few more characters as such than the patterns do.
"""

import re

from tinyllm.tokenizers.patterns import machine_of, pattern_text

CUT = re.compile(r"(?<=[A-Za-z])(?=[\t\n\r -&(-/:-@\[-`{-~])|(?<=\S\n)(?=[^\s/])")
WINDOWS = (1 << 10, 1 << 14)  # characters to look through for a place, before all are


def cutter(pattern):
    """`last_cut` for a named pattern; None for one of the user's own, of which nothing is known."""
    return None if machine_of(pattern_text(pattern)) is None else last_cut


def last_cut(text, start, stop):
    """The last safe place after `start` and before `stop`; None if there is none."""
    for window in (*WINDOWS, stop - start):
        places = [match.start() for match in CUT.finditer(text, max(start + 1, stop - window), stop)]
        if places:
            return places[-1]
    return None


def parts(text, start, stop, size):
    """The text from `start` to `stop` in parts of about `size` characters, cut in safe places only; longer if none."""
    while stop - start > size:
        cut = last_cut(text, start, start + size)
        if cut is None:
            found = CUT.search(text, start + size, stop)
            cut = found.start() if found else stop
        yield text[start:cut]
        start = cut
    yield text[start:stop]
