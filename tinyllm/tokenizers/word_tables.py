"""A hash table of words for kernels: each different piece of a text is stored once, with its count.

Open addressing with linear probing. Importing this needs Numba; `word_counting.PlainTable` is the plain Python that
does the same.
"""

import numba
import numpy as np

from tinyllm.tokenizers.compiling import kernel
from tinyllm.tokenizers.splitting import CLASSES, TEXT, part, piece_end
from tinyllm.tokenizers.unicode.categories import character_classes
from tinyllm.tokenizers.words import Words

EMPTY = -1
CODE, COUNT = range(2)  # the columns of the array of entries
FNV_BASIS, FNV_PRIME = 0xCBF29CE484222325 - 2**64, 0x100000001B3  # Fowler, Noll and Vo's hash, variant 1a
SIGN = -(2**63)

int64 = numba.int64
BYTES = numba.types.Array(numba.uint8, 1, "C")
READ_ONLY_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
SLOTS = numba.int32[::1]
NUMBERS = int64[::1]
ENTRIES = int64[:, ::1]


class WordTable:
    """Words and how often each occurred, in arrays that double when they are full.

    entries: of each word its code and its count. starts and content: its bytes, as in `Words`. slots: the number of a
    word where its code, or that of one before, points to; a power of two, at most half of them taken.
    """

    def __init__(self, words=1 << 14, size=1 << 17):
        self.used = np.zeros(1, np.int64)  # how many words there are; an array, so that kernels can change it
        self.slots, self.entries = np.full(2 * words, EMPTY, np.int32), np.empty((words, 2), np.int64)
        self.starts, self.content = np.zeros(words + 1, np.int64), np.empty(size, np.uint8)

    def arrays(self):
        """What kernels are given, in the order of their last arguments."""
        return self.slots, self.entries, self.starts, self.content, self.used

    def num_bytes(self):
        """The bytes of all words, and one for each."""
        words = self.used[0]
        return int(self.starts[words] + words)

    def count(self, machine, text, ends):
        """Cut a text (bytes) by a machine (`patterns.machine_of`) and count the pieces.

        ends: int64, where its parts end, which no piece may cross; the last is the length of the text.
        """
        at = 0
        while at < len(text):
            at = count_pieces(machine, text, ends, at, character_classes(), *self.arrays())
            if at < len(text):
                self.make_room(2 * int(self.used[0]), 2 * len(self.content))

    def add(self, words):
        """Add the counts of other words (Words)."""
        have = int(self.used[0])
        self.make_room(have + len(words), int(self.starts[have]) + len(words.content))
        add_words(words.content, words.starts, words.counts, *self.arrays())

    def make_room(self, words, size):
        """Enlarge the arrays, by doubling, for so many words of so many bytes together."""
        have = int(self.used[0])
        if words > len(self.entries):
            room = 1 << (words - 1).bit_length()
            self.entries, self.starts = resized(self.entries, have, room), resized(self.starts, have + 1, room + 1)
            self.slots = np.full(2 * room, EMPTY, np.int32)
            fill_slots(have, self.slots, self.entries)
        if size > len(self.content):
            self.content = resized(self.content, int(self.starts[have]), 1 << (size - 1).bit_length())

    def words(self):
        """What was counted, as Words; the table is not to be used any more."""
        have = int(self.used[0])
        counts = self.entries[:have, COUNT].copy()
        return Words(self.content[: self.starts[have]], self.starts[: have + 1], counts)


def resized(array, used, room):
    """An array of `room` rows that begins with the first `used` ones."""
    larger = np.empty((room, *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger


@kernel(int64(int64, TEXT, NUMBERS, int64, CLASSES, SLOTS, ENTRIES, NUMBERS, BYTES, NUMBERS))
def count_pieces(machine, text, ends, at, classes, slots, entries, starts, content, used):
    """Count the pieces of `text` from `at` on; returns where it stopped, before the end if the table is full."""
    for stop in ends:
        while at < stop:
            end = piece_end(machine, text, at, stop, classes)
            if not add(text, at, end, int64(1), slots, entries, starts, content, used):
                return at
            at = end
    return at


@kernel(int64(READ_ONLY_BYTES, NUMBERS, NUMBERS, SLOTS, ENTRIES, NUMBERS, BYTES, NUMBERS))
def add_words(other_content, other_starts, other_counts, slots, entries, starts, content, used):
    """Add other words to a table that has room for them; returns how many words it has then."""
    for word in range(len(other_counts)):
        start, end = other_starts[word], other_starts[word + 1]
        add(other_content, start, end, other_counts[word], slots, entries, starts, content, used)
    return used[0]


@part
def add(text, start, end, amount, slots, entries, starts, content, used):
    """Add `amount` to the count of the word text[start:end]; returns False if it is new and there is no room for it."""
    code = code_of(text, start, end)
    slot = slot_of(code, slots)
    while slots[slot] != EMPTY:
        word = slots[slot]
        if entries[word, CODE] == code and (code >= 0 or equal(text, start, end, content, starts, word)):
            entries[word, COUNT] += amount
            return True
        slot = (slot + 1) & (len(slots) - 1)
    word = used[0]
    begin = starts[word]
    if word == len(entries) or begin + end - start > len(content):
        return False
    slots[slot], entries[word, CODE], entries[word, COUNT] = word, code, amount
    for at in range(end - start):
        content[begin + at] = text[start + at]
    starts[word + 1] = begin + end - start
    used[0] = word + 1
    return True


@part
def code_of(text, start, end):
    """Of up to seven bytes their number and themselves, so that equal codes are equal words; of more a hash below 0."""
    if end - start < 8:
        code = end - start
        for at in range(start, end):
            code = code << 8 | text[at]
        return code
    code = int64(FNV_BASIS)
    for at in range(start, end):
        code = (code ^ text[at]) * FNV_PRIME
    return code | SIGN


@part
def slot_of(code, slots):
    """The first slot in which to look for a word of this code."""
    return ((code ^ code >> 32) * FNV_BASIS >> 32) & (len(slots) - 1)


@part
def equal(text, start, end, content, starts, word):
    """Whether text[start:end] is that word."""
    at = starts[word]
    if end - start != starts[word + 1] - at:
        return False
    while start < end and text[start] == content[at]:
        start += 1
        at += 1
    return start == end


@kernel(numba.void(int64, SLOTS, ENTRIES))
def fill_slots(words, slots, entries):
    """Enter the first `words` words into empty slots."""
    for word in range(words):
        slot = slot_of(entries[word, CODE], slots)
        while slots[slot] != EMPTY:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = word
