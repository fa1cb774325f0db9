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
HASH_BASIS, HASH_PRIME = 0xCBF29CE484222325 - 2**64, 0x100000001B3  # FNV-1a, Fowler, Noll and Vo

int64 = numba.int64
BYTES = numba.types.Array(numba.uint8, 1, "C")
READ_ONLY_BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
SLOTS = numba.int32[::1]
NUMBERS = int64[::1]


class WordTable:
    """Words and how often each occurred, in arrays that double when they are full.

    words: how many of them there are. Of word i: hashes[i], starts[i], counts[i], as in `Words`. slots: the number of
    a word where its hash, or that of one before, points to; a power of two, at most half of them taken.
    """

    def __init__(self, words=1 << 14, size=1 << 17):
        self.sizes = np.zeros(1, np.int64)  # of an array, so that kernels can change it
        self.slots = np.full(2 * words, EMPTY, np.int32)
        self.hashes, self.counts = np.empty(words, np.int64), np.empty(words, np.int64)
        self.starts, self.content = np.zeros(words + 1, np.int64), np.empty(size, np.uint8)

    def arrays(self):
        """What kernels are given, in the order of their last arguments."""
        return self.slots, self.hashes, self.starts, self.counts, self.content, self.sizes

    def num_bytes(self):
        """The bytes of all words, and one for each."""
        words = self.sizes[0]
        return int(self.starts[words] + words)

    def count(self, machine, text, ends):
        """Cut a text (bytes) by a machine (`patterns.machine_of`) and count the pieces.

        ends: int64, where its parts end, which no piece may cross; the last is the length of the text.
        """
        at = 0
        while at < len(text):
            at = count_pieces(machine, text, ends, at, character_classes(), *self.arrays())
            if at < len(text):
                self.make_room(2 * int(self.sizes[0]), 2 * len(self.content))

    def add(self, words):
        """Add the counts of other words (Words)."""
        have = int(self.sizes[0])
        self.make_room(have + len(words), int(self.starts[have]) + len(words.content))
        add_words(words.content, words.starts, words.counts, *self.arrays())

    def make_room(self, words, size):
        """Enlarge the arrays, by doubling, for so many words of so many bytes together."""
        have = int(self.sizes[0])
        if words > len(self.counts):
            room = 1 << (words - 1).bit_length()
            self.hashes, self.counts = resized(self.hashes, have, room), resized(self.counts, have, room)
            self.starts = resized(self.starts, have + 1, room + 1)
            self.slots = np.full(2 * room, EMPTY, np.int32)
            fill_slots(have, self.slots, self.hashes)
        if size > len(self.content):
            self.content = resized(self.content, int(self.starts[have]), 1 << (size - 1).bit_length())

    def words(self):
        """What was counted, as Words; the table is not to be used any more."""
        have = int(self.sizes[0])
        return Words(self.content[: self.starts[have]], self.starts[: have + 1], self.counts[:have])


def resized(array, used, room):
    """An array of `room` entries that begins with the first `used` ones."""
    larger = np.empty(room, array.dtype)
    larger[:used] = array[:used]
    return larger


@kernel(int64(int64, TEXT, NUMBERS, int64, CLASSES, SLOTS, NUMBERS, NUMBERS, NUMBERS, BYTES, NUMBERS))
def count_pieces(machine, text, ends, at, classes, slots, hashes, starts, counts, content, sizes):
    """Count the pieces of `text` from `at` on; returns where it stopped, before the end if the table is full."""
    for stop in ends:
        while at < stop:
            end = piece_end(machine, text, at, stop, classes)
            if not add(text, at, end, 1, slots, hashes, starts, counts, content, sizes):
                return at
            at = end
    return at


@kernel(int64(READ_ONLY_BYTES, NUMBERS, NUMBERS, SLOTS, NUMBERS, NUMBERS, NUMBERS, BYTES, NUMBERS))
def add_words(other_content, other_starts, other_counts, slots, hashes, starts, counts, content, sizes):
    """Add other words to a table that has room for them; returns how many words it has then."""
    for word in range(len(other_counts)):
        start, end = other_starts[word], other_starts[word + 1]
        add(other_content, start, end, other_counts[word], slots, hashes, starts, counts, content, sizes)
    return sizes[0]


@part
def add(text, start, end, amount, slots, hashes, starts, counts, content, sizes):
    """Add `amount` to the count of the word text[start:end]; returns False if it is new and there is no room for it."""
    code = HASH_BASIS
    for at in range(start, end):
        code = (code ^ text[at]) * HASH_PRIME
    slot = slot_of(code, slots)
    while slots[slot] != EMPTY:
        word = slots[slot]
        if hashes[word] == code and equal(text, start, end, content, starts[word], starts[word + 1]):
            counts[word] += amount
            return True
        slot = (slot + 1) & (len(slots) - 1)
    word = sizes[0]
    begin = starts[word]
    if word == len(counts) or begin + end - start > len(content):
        return False
    slots[slot], hashes[word], counts[word], starts[word + 1] = word, code, amount, begin + end - start
    for at in range(end - start):
        content[begin + at] = text[start + at]
    sizes[0] = word + 1
    return True


@part
def slot_of(code, slots):
    """The first slot in which to look for a word of this hash."""
    return (code ^ (code >> 32)) & (len(slots) - 1)


@part
def equal(text, start, end, content, begin, stop):
    """Whether text[start:end] and content[begin:stop] are the same bytes."""
    if end - start != stop - begin:
        return False
    while start < end and text[start] == content[begin]:
        start += 1
        begin += 1
    return start == end


@kernel(numba.void(int64, SLOTS, NUMBERS))
def fill_slots(words, slots, hashes):
    """Enter the first `words` words into empty slots."""
    for word in range(words):
        slot = slot_of(hashes[word], slots)
        while slots[slot] != EMPTY:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = word
