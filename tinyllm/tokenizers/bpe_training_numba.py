"""Learning a byte-pair vocabulary in Numba: the same merges as `bpe_training`, many times as fast.

All words lie in one array, a place for each byte and an empty one between words. A token takes the places of its
bytes: its id stands at its first place and, as ~id, at its last, so that both neighbours of a token are found from its
borders and the lengths of tokens. The places where the same pair begins form a list, linked in both directions and in
the order of the words: a merge walks along the list of its pair, takes its neighbours' places out of their old lists
and puts them at the end of new ones. No place is looked at that does not change, and nothing is counted twice.
"""

import numba
import numpy as np

from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.compiling import kernel
from tinyllm.tokenizers.splitting import part

# The columns of the array of places: the id; the pair that begins here; the places before and after this one in that
# pair's list; the number of the word.
SYMBOL, PAIR, BEFORE, AFTER, WORD = range(5)
# The columns of the array of pairs: the two ids; the first and the last place of its list.
LEFT, RIGHT, FIRST, LAST = range(4)
NONE = -1
END = -(2**31)  # the symbol of the place between two words

BYTE_PAIRS = 256 * 256
ROOM = 2 * BYTE_PAIRS  # for pairs at first
MERGES_AT_ONCE = 64  # so often progress is told

int64 = numba.int64
BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
NUMBERS, IDS, ROWS = int64[::1], numba.int32[::1], numba.int32[:, ::1]


def learn_merges(words, number, progress=None):
    """The first `number` merges for `words` (Words): a list of (left id, right id). See `bpe_training.learn_merges`."""
    places = np.empty((len(words.content) + len(words) + 1, 5), np.int32)
    pairs, counts = np.empty((ROOM, 4), np.int32), np.zeros(ROOM, np.int64)
    lay_out(words.content, words.starts, words.counts, np.argsort(BYTE_ORDER), places, pairs, counts)
    heap, heap_counts = np.empty(ROOM, np.int32), np.empty(ROOM, np.int64)
    sizes = np.array([BYTE_PAIRS, fill(heap, heap_counts, pairs, counts)])
    # Of each token: its bytes, and the newest pairs that it is the left and the right half of.
    most = min(number, len(words.content))  # each merge takes away a token at least
    lengths, newest = np.ones(256 + most, np.int32), np.full((256 + most, 2), NONE, np.int32)
    merges, done = np.empty((most, 2), np.int32), 0
    while done < most and sizes[1] > 0:
        before = done
        done = learn_some(
            before, min(most, before + MERGES_AT_ONCE), merges, words.counts,
            places, pairs, counts, heap, heap_counts, sizes, lengths, newest,
        )  # fmt: skip
        if done == before and sizes[1] > 0:
            pairs, counts, heap, heap_counts = (
                doubled(array, sizes[0]) for array in (pairs, counts, heap, heap_counts)
            )
        for told in range(before + 1, done + 1) if progress is not None else ():
            progress(told, number)
    return list(map(tuple, merges[:done].tolist()))


def doubled(array, used):
    """A copy of the first `used` rows with room for twice as many as there were."""
    larger = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger


@kernel(numba.void(BYTES, NUMBERS, NUMBERS, NUMBERS, ROWS, ROWS, NUMBERS))
def lay_out(content, starts, word_counts, id_of_byte, places, pairs, counts):
    """Fill `places` with the words' bytes, and `pairs` and `counts` with all 65,536 pairs of bytes."""
    for pair in range(BYTE_PAIRS):
        pairs[pair, LEFT], pairs[pair, RIGHT] = pair // 256, pair % 256
        pairs[pair, FIRST] = pairs[pair, LAST] = NONE
    places[0, SYMBOL] = END
    place = 1
    for word in range(len(word_counts)):
        for at in range(starts[word], starts[word + 1]):
            places[place, SYMBOL] = id_of_byte[content[at]]
            places[place, PAIR] = NONE
            places[place, WORD] = word
            if at > starts[word]:
                pair = places[place - 1, SYMBOL] * 256 + places[place, SYMBOL]
                link(place - 1, pair, word_counts[word], places, pairs, counts)
            place += 1
        places[place, SYMBOL] = END
        place += 1


@part
def link(place, pair, weight, places, pairs, counts):
    """Put `place` at the end of the list of `pair`."""
    last = pairs[pair, LAST]
    places[place, PAIR], places[place, BEFORE], places[place, AFTER] = pair, last, NONE
    if last == NONE:
        pairs[pair, FIRST] = place
    else:
        places[last, AFTER] = place
    pairs[pair, LAST] = place
    counts[pair] += weight


@part
def unlink(place, weight, places, pairs, counts):
    """Take `place` out of the list that it is in."""
    pair, before, after = places[place, PAIR], places[place, BEFORE], places[place, AFTER]
    if before == NONE:
        pairs[pair, FIRST] = after
    else:
        places[before, AFTER] = after
    if after == NONE:
        pairs[pair, LAST] = before
    else:
        places[after, BEFORE] = before
    places[place, PAIR] = NONE
    counts[pair] -= weight


@kernel(int64(int64, int64, ROWS, NUMBERS, ROWS, ROWS, NUMBERS, IDS, NUMBERS, NUMBERS, IDS, ROWS))
def learn_some(done, until, merges, word_counts, places, pairs, counts, heap, heap_counts, sizes, lengths, newest):
    """Go on from merge `done` up to `until`; return how many are done: fewer if none is left or `pairs` is full.

    heap and heap_counts: pairs and how often they occurred when they were put there. Counts of known pairs only fall,
    so what lies on top is at least as large as the truth: an outdated entry is put back with its present count, and a
    correct one is the maximum.
    """
    num_pairs, size = sizes[0], sizes[1]
    # A merge makes at most two new pairs with each token that there is.
    while done < until and size > 0 and num_pairs + 2 * (257 + done) <= len(counts):
        pair, count = heap[0], heap_counts[0]
        size = pop(heap, heap_counts, size, pairs)
        if counts[pair] != count:
            if counts[pair] > 0:
                size = push(pair, counts[pair], heap, heap_counts, size, pairs)
            continue
        merges[done, 0], merges[done, 1] = pairs[pair, LEFT], pairs[pair, RIGHT]
        first_new = num_pairs
        num_pairs = merge(pair, 256 + done, num_pairs, word_counts, places, pairs, counts, lengths, newest)
        for new in range(first_new, num_pairs):
            if counts[new] > 0:
                size = push(new, counts[new], heap, heap_counts, size, pairs)
        done += 1
    sizes[0], sizes[1] = num_pairs, size
    return done


@part
def merge(pair, made, num_pairs, word_counts, places, pairs, counts, lengths, newest):
    """Make `made` of `pair` at all its places, from left to right; return the number of pairs there are then."""
    left, right = pairs[pair, LEFT], pairs[pair, RIGHT]
    lengths[made] = lengths[left] + lengths[right]
    first_new = num_pairs
    while pairs[pair, FIRST] != NONE:
        place = pairs[pair, FIRST]
        weight = word_counts[places[place, WORD]]
        second = place + lengths[left]
        stop = place + lengths[made]
        before, after = places[place - 1, SYMBOL], places[stop, SYMBOL]
        unlink(place, weight, places, pairs, counts)
        places[place, SYMBOL] = made
        places[stop - 1, SYMBOL] = ~made
        if before != END:
            before = max(before, ~before)
            neighbour = place - lengths[before]
            unlink(neighbour, weight, places, pairs, counts)
            new = newest[before, 0]
            if new < first_new:
                new = newest[before, 0] = num_pairs
                num_pairs = new_pair(before, made, num_pairs, pairs, counts)
            link(neighbour, new, weight, places, pairs, counts)
        if after != END:
            unlink(second, weight, places, pairs, counts)
            new = newest[after, 1]
            if new < first_new:
                new = newest[after, 1] = num_pairs
                num_pairs = new_pair(made, after, num_pairs, pairs, counts)
            link(place, new, weight, places, pairs, counts)
    return num_pairs


@part
def new_pair(left, right, num_pairs, pairs, counts):
    """Add a pair that occurs nowhere yet; return the number of pairs there are then."""
    pairs[num_pairs, LEFT], pairs[num_pairs, RIGHT] = left, right
    pairs[num_pairs, FIRST] = pairs[num_pairs, LAST] = NONE
    counts[num_pairs] = 0
    return num_pairs + 1


@kernel(int64(IDS, NUMBERS, ROWS, NUMBERS))
def fill(heap, heap_counts, pairs, counts):
    """Put the pairs of bytes that occur into the heap; return its size."""
    size = 0
    for pair in range(BYTE_PAIRS):
        if counts[pair] > 0:
            size = push(pair, counts[pair], heap, heap_counts, size, pairs)
    return size


@part
def goes_first(pair, count, other, other_count, pairs):
    """The more frequent pair goes first; of equally frequent ones that with the smaller ids, left id first."""
    if count != other_count:
        return count > other_count
    if pairs[pair, LEFT] != pairs[other, LEFT]:
        return pairs[pair, LEFT] < pairs[other, LEFT]
    return pairs[pair, RIGHT] < pairs[other, RIGHT]


@part
def push(pair, count, heap, heap_counts, size, pairs):
    """Put a pair into the heap of `size` entries; return the new size."""
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if not goes_first(pair, count, heap[parent], heap_counts[parent], pairs):
            break
        heap[at], heap_counts[at] = heap[parent], heap_counts[parent]
        at = parent
    heap[at], heap_counts[at] = pair, count
    return size + 1


@part
def pop(heap, heap_counts, size, pairs):
    """Remove the first entry of the heap of `size` entries; return the new size."""
    size -= 1
    pair, count = heap[size], heap_counts[size]
    at, child = 0, 1
    while child < size:
        if child + 1 < size and goes_first(
            heap[child + 1], heap_counts[child + 1], heap[child], heap_counts[child], pairs
        ):
            child += 1
        if not goes_first(heap[child], heap_counts[child], pair, count, pairs):
            break
        heap[at], heap_counts[at] = heap[child], heap_counts[child]
        at, child = child, 2 * child + 1
    heap[at], heap_counts[at] = pair, count
    return size
