"""Learning a byte-pair vocabulary in NumPy: all words in one array, one merge at all its places at once.

The same merges as `bpe_training`, which is the one to read first. The places of a pair are found by looking through
the array; the counts of pairs are made once and then only changed where the array changes.
"""

import numpy as np

from tinyllm.tokenizers.byte_symbols import BYTE_ORDER

END = -1  # stands between words in the array of ids
SHIFT = 32  # a pair is one number, left * 2^32 + right, so that sorted numbers are sorted pairs


def learn_merges(words, number, progress=None):
    """The first `number` merges for `words` (Words): a list of (left id, right id). See `bpe_training.learn_merges`."""
    ids, weights = lay_out(words)
    pairs, counts = count_pairs(ids, weights, np.arange(len(ids) - 1))
    merges = []
    while len(merges) < number and len(counts):
        best = np.argmax(counts)  # the first of the largest, so the smallest pair
        if counts[best] == 0:
            break
        pair = divmod(int(pairs[best]), 1 << SHIFT)
        ids, weights, removed, added = merge_everywhere(pair, 256 + len(merges), ids, weights)
        pairs, counts = update(pairs, counts, removed, added)
        merges.append(pair)
        if progress is not None:
            progress(len(merges), number)
    return merges


def lay_out(words):
    """All words as ids with END before, between and after them (int64), and how often each id's word occurs."""
    id_of_byte = np.argsort(BYTE_ORDER)
    ids = np.insert(id_of_byte[words.content], words.starts, END)
    return ids, np.append(np.repeat(words.counts, np.diff(words.starts) + 1), 0)


def count_pairs(ids, weights, places):
    """The different pairs that begin at `places` (sorted numbers) and how often they occur in the text."""
    left, right = ids[places], ids[places + 1]
    inside = (left != END) & (right != END)
    pairs, which = np.unique((left[inside] << SHIFT) + right[inside], return_inverse=True)
    counts = np.zeros(len(pairs), np.int64)
    np.add.at(counts, which, weights[places[inside]])
    return pairs, counts


def merge_everywhere(pair, made, ids, weights):
    """ids and weights with every occurrence of `pair` replaced by `made`; the pairs and counts that went and came."""
    left, right = pair
    places = np.flatnonzero((ids[:-1] == left) & (ids[1:] == right))
    if left == right:
        places = every_second(places)
    touched = np.unique(np.concatenate([places - 1, places, places + 1]))
    removed = count_pairs(ids, weights, touched)
    ids[places] = made
    ids, weights = np.delete(ids, places + 1), np.delete(weights, places + 1)
    places = places - np.arange(len(places))  # each deletion moves what stands after it by one
    added = count_pairs(ids, weights, np.unique(np.concatenate([places - 1, places])))
    return ids, weights, removed, added


def every_second(places):
    """In "aaaa" the pair "aa" stands at 0, 1 and 2, and from the left those at 0 and 2 are merged."""
    begins = np.diff(places, prepend=-2) != 1
    run = np.maximum.accumulate(np.where(begins, np.arange(len(places)), 0))
    return places[(np.arange(len(places)) - run) % 2 == 0]


def update(pairs, counts, removed, added):
    """The sorted pairs and their counts, with those of `removed` taken off and those of `added`, all new, put in."""
    counts[np.searchsorted(pairs, removed[0])] -= removed[1]
    where = np.searchsorted(pairs, added[0])
    return np.insert(pairs, where, added[0]), np.insert(counts, where, added[1])
