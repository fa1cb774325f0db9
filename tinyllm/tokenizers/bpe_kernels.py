"""Byte-pair encoding as kernels: pieces are cut, looked up among those met before, and merged where they are new.

`tables` is one vocabulary in one int64 array, `memory` what one thread remembers of the pieces that it met; each is one
array and not several because every array that a kernel is called with costs as much as five bytes of text.

    tables    the numbers of slots of both hash tables, the number of the machine that cuts; the ids of the 256 bytes;
              the classes of all code points, eight in one number;
              pairs: rows (left id and right id, rank and merged id), each two numbers of 32 bits in one;
              pieces: rows (the piece in four words, its id), those that become one token as a whole
    memory    room for merging a short piece; rows (the piece in four words, how many ids, six ids in three words)

A piece of up to 31 bytes is four words. The first has seven bytes and the length, so that it alone tells apart the
pieces of up to seven bytes, which most are; the others have eight bytes each, zeros behind the end.
"""

import numba
import numpy as np

from tinyllm.tokenizers.compiling import kernel
from tinyllm.tokenizers.splitting import TEXT, part, piece_end
from tinyllm.tokenizers.unicode.categories import CODE_POINTS

int32, int64 = numba.int32, numba.int64

EMPTY = np.int64(-1)  # the left word of a slot that holds nothing
NO_MERGE = np.int64(2**63 - 1)  # a rank above all others
LOW = np.int64(2**32 - 1)  # the lower half of a word

WORDS = 4  # of a piece
FIRST = 7  # bytes in the first of them
LONGEST_KNOWN = 8 * WORDS - 1  # bytes of a piece that is looked up
SHORT = 100  # bytes of a piece that is merged by looking for the next merge from end to end

BYTES_AT = 3  # where the ids of bytes begin in `tables`
CLASSES_AT = BYTES_AT + 256
PAIRS_AT = CLASSES_AT + CODE_POINTS // 8
PAIR, PIECE, MET = 2, WORDS + 1, 2 * WORDS  # numbers in a row
MOST_IDS = 2 * (MET - WORDS - 1)  # of a piece that is remembered
ROOM = 2 * SHORT  # in `memory`, before its rows


def new_tables(pair_slots, piece_slots, machine, byte_ids, classes):
    """The `tables` of a vocabulary that is still to be filled in. Slots: powers of two, some of them to stay empty."""
    tables = np.empty(PAIRS_AT + PAIR * pair_slots + PIECE * piece_slots, np.int64)
    tables[:BYTES_AT] = pair_slots, piece_slots, machine
    tables[BYTES_AT:CLASSES_AT] = byte_ids
    tables[CLASSES_AT:PAIRS_AT] = classes.view(np.int64)
    return tables


def new_memory(slots):
    """A `memory` in which nothing was met, for as many pieces as `slots`, a power of two."""
    return np.zeros(ROOM + MET * slots, np.int64)


@kernel(int64(TEXT, int64[::1], int64[::1], int32[::1]))
def encode(text, tables, memory, ids):
    """Write the token ids of a text to `ids`, which has room for len(text); returns how many they are."""
    machine, classes = tables[2], tables[CLASSES_AT:PAIRS_AT].view(np.uint8)
    slots = (len(memory) - ROOM) // MET
    at, count = int64(0), int64(0)
    while at < len(text):
        end = piece_end(machine, text, at, len(text), classes)
        length = end - at
        if length > LONGEST_KNOWN:
            count += merge(text, at, length, tables, memory, ids, count)
        else:
            key = piece_words(text, at, length)
            row = ROOM + MET * (mixed(key) & (slots - 1))
            if same_piece(memory, row, key):
                number = memory[row + WORDS]
                ids[count] = memory[row + WORDS + 1] & LOW
                for place in range(1, number):
                    ids[count + place] = memory[row + WORDS + 1 + place // 2] >> 32 * (place % 2) & LOW
                count += number
            else:
                count += encode_new(text, at, length, key, tables, memory, row, ids, count)
        at = end
    return count


@part
def encode_new(text, at, length, key, tables, memory, row, ids, count):
    """Ids of a piece that is not remembered to ids[count:], and into the row of `memory`; returns how many."""
    token = known_piece(tables, key)
    if token >= 0:
        ids[count] = token
        number = int64(1)
    else:
        number = merge(text, at, length, tables, memory, ids, count)
    if number <= MOST_IDS:
        write_piece(memory, row, key)
        memory[row + WORDS] = number
        for place in range(MOST_IDS // 2):
            memory[row + WORDS + 1 + place] = 0
        for place in range(number):
            memory[row + WORDS + 1 + place // 2] |= int64(ids[count + place]) << 32 * (place % 2)
    return number


# Looking up.


@part
def piece_words(text, at, length):
    """The four words of a piece of at most LONGEST_KNOWN bytes."""
    first = word_of(text, at, min(length, FIRST)) | length << 8 * FIRST
    if length <= FIRST:
        return first, int64(0), int64(0), int64(0)
    return (
        first,
        word_of(text, at + FIRST, length - FIRST),
        word_of(text, at + FIRST + 8, length - FIRST - 8),
        word_of(text, at + FIRST + 16, length - FIRST - 16),
    )


@part
def word_of(text, at, length):
    """The next `length` bytes, at most eight, as one number, the first byte the lowest."""
    if length <= 0:
        return int64(0)
    if at + 8 <= len(text):  # one load, and the bytes that are too many cut off
        word = eight_bytes(text, np.uint64(at))
        return word if length >= 8 else word & ((int64(1) << 8 * length) - 1)
    word = int64(0)
    for place in range(min(length, 8)):
        word |= int64(text[at + place]) << 8 * place
    return word


@part
def eight_bytes(text, at):
    """Eight bytes as one number; at: unsigned, for which the compiler knows that it is one load."""
    word = int64(0)
    for place in range(8):
        word |= int64(text[at + np.uint64(place)]) << 8 * place
    return word


@part
def mixed(key):
    """A hash of the four words of a piece, not negative."""
    word = key[0] + key[1] * 0x2545F4914F6CDD1D + key[2] * 0x369DEA0F31A53F85 + key[3] * 0x1CE4E5B9BF58476D
    word *= 0x5851F42D4C957F2D
    return (word >> 32) & LOW


@part
def same_piece(rows, row, key):
    """Whether the words from `row` on are those of the piece."""
    if rows[row] != key[0]:
        return False
    length = key[0] >> 8 * FIRST
    if length <= FIRST:
        return True
    return rows[row + 1] == key[1] and rows[row + 2] == key[2] and rows[row + 3] == key[3]


@part
def write_piece(rows, row, key):
    """The words of the piece to `row` and on."""
    for place in range(WORDS):
        rows[row + place] = key[place]


@part
def known_piece(tables, key):
    """The token that merging makes of this piece; -1 where it makes several."""
    row = piece_row(tables, key)
    return tables[row + WORDS]


@part
def piece_row(tables, key):
    """The row of this piece, or the empty one where it would stand."""
    slots = tables[1]
    first = PAIRS_AT + PAIR * tables[0]
    slot = mixed(key) & (slots - 1)
    while True:
        row = first + PIECE * slot
        if tables[row + WORDS] == EMPTY or same_piece(tables, row, key):
            return row
        slot = (slot + 1) & (slots - 1)


@part
def pair_row(tables, pair):
    """The row of a pair (left id << 32 | right id), or the empty one where it would stand."""
    slots = tables[0]
    word = pair * 0x5851F42D4C957F2D
    slot = (word >> 32) & (slots - 1)
    while True:
        row = PAIRS_AT + PAIR * slot
        if tables[row] == pair or tables[row] == EMPTY:
            return row
        slot = (slot + 1) & (slots - 1)


@part
def merge_of(tables, left, right):
    """Rank << 32 | merged id of two neighbours; NO_MERGE where they are none. Empty rows say so too."""
    return tables[pair_row(tables, left << 32 | right) + 1]


# Merging.


@part
def merge(text, at, length, tables, memory, ids, count):
    """Merge one piece into ids[count:] as `bpe_merging.merge_ids` does; returns how many tokens it becomes."""
    if length <= SHORT:
        tokens, merges = memory[:SHORT], memory[SHORT:ROOM]
        number = merge_short(text, at, length, tables, tokens, merges)
    else:
        tokens = np.empty(length, np.int64)
        number = merge_long(text, at, length, tables, tokens)
    for place in range(number):
        ids[count + place] = tokens[place]
    return number


@part
def merge_short(text, at, length, tables, tokens, merges):
    """merges[i] is what tokens[i] and the next could become; what is behind a merge moves up by one."""
    for place in range(length):
        tokens[place] = tables[BYTES_AT + text[at + place]]
    for place in range(length - 1):
        merges[place] = merge_of(tables, tokens[place], tokens[place + 1])
    number = length
    while number > 1:
        best = int64(0)
        for place in range(1, number - 1):
            if merges[place] < merges[best]:
                best = place
        if merges[best] == NO_MERGE:
            break
        tokens[best] = merges[best] & LOW
        number -= 1
        for place in range(best + 1, number):
            tokens[place] = tokens[place + 1]
            merges[place - 1] = merges[place]
        if best > 0:
            merges[best - 1] = merge_of(tables, tokens[best - 1], tokens[best])
        if best < number - 1:
            merges[best] = merge_of(tables, tokens[best], tokens[best + 1])
    return number


@part
def merge_long(text, at, length, tables, tokens):
    """The same with a linked list and a heap of (rank << 32 | place): length * log(length) steps."""
    merges = np.full(length, NO_MERGE, np.int64)
    after, before = np.empty(length, np.int64), np.empty(length, np.int64)
    heap, size = np.empty(3 * length, np.int64), int64(0)  # a merge makes at most two new pairs
    for place in range(length):
        tokens[place] = tables[BYTES_AT + text[at + place]]
        after[place], before[place] = place + 1, place - 1
    for place in range(length - 1):
        size = offer(place, place + 1, tokens, merges, heap, size, tables)
    while size > 0:
        rank, place = heap[0] >> 32, heap[0] & LOW
        size = drop_first(heap, size)
        if merges[place] >> 32 != rank or merges[place] == NO_MERGE:
            continue  # one of the two took part in another merge
        right = after[place]
        tokens[place] = merges[place] & LOW
        tokens[right], merges[right], merges[place] = EMPTY, NO_MERGE, NO_MERGE
        after[place] = after[right]
        if after[place] < length:
            before[after[place]] = place
            size = offer(place, after[place], tokens, merges, heap, size, tables)
        if before[place] >= 0:
            size = offer(before[place], place, tokens, merges, heap, size, tables)
    number = int64(0)
    for place in range(length):
        if tokens[place] != EMPTY:
            tokens[number] = tokens[place]
            number += 1
    return number


@part
def offer(left, right, tokens, merges, heap, size, tables):
    """Note what two neighbours could become, and put it into the heap; returns the size of the heap."""
    merges[left] = merge_of(tables, tokens[left], tokens[right])
    if merges[left] == NO_MERGE:
        return size
    value, hole = merges[left] & ~LOW | left, size
    while hole > 0 and heap[(hole - 1) // 2] > value:
        heap[hole] = heap[(hole - 1) // 2]
        hole = (hole - 1) // 2
    heap[hole] = value
    return size + 1


@part
def drop_first(heap, size):
    """Take the smallest out of the heap; returns its new size."""
    size -= 1
    value, hole = heap[size], int64(0)
    while 2 * hole + 1 < size:
        child = 2 * hole + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[hole] = heap[child]
        hole = child
    heap[hole] = value
    return size


# Making the tables.


@kernel(int64(TEXT, int64[::1], int64[::1], int64[:, ::1], int64[::1], int32[::1], int64[::1], int64))
def fill_tables(contents, starts, numbers, merges, tables, ids, memory, whole):
    """Fill `new_tables` with one vocabulary.

    contents: the bytes of all tokens, one after the other; starts: (n + 1,) where each begins; numbers: (n,) their ids.
    merges: (m, 4) left id, right id, rank, merged id. ids: as long as the longest token. memory: as for `encode`.
    whole: 1 where every token is looked up as a whole (`ignore_merges`), 0 where only those are that merging leads to.
    Returns how many tokens should be looked up and are too long for it.
    """
    tables[PAIRS_AT:] = EMPTY
    for slot in range(tables[0]):
        tables[PAIRS_AT + PAIR * slot + 1] = NO_MERGE
    for number in range(len(merges)):
        pair = merges[number, 0] << 32 | merges[number, 1]
        row = pair_row(tables, pair)
        tables[row] = pair
        tables[row + 1] = merges[number, 2] << 32 | merges[number, 3]
    too_long = int64(0)
    for number in range(len(numbers)):
        at, length = starts[number], starts[number + 1] - starts[number]
        if length == 0 or (length > LONGEST_KNOWN and whole == 0):
            continue
        # Merging may not lead to a token though its bytes are right, in a vocabulary of several sources.
        found = merge(contents, at, length, tables, memory, ids, int64(0))
        is_reached = found == 1 and ids[0] == numbers[number]
        if length > LONGEST_KNOWN:
            too_long += int64(not is_reached)
        elif is_reached or whole == 1:
            key = piece_words(contents, at, length)
            row = piece_row(tables, key)
            write_piece(tables, row, key)
            tables[row + WORDS] = numbers[number]
    return too_long
