"""Learning a byte-pair vocabulary: count the pairs once, then only update what each merge changes.

Source: Sennrich, Haddow, Birch 2016, section 3.2, on bytes as in GPT-2 (Radford et al. 2019, section 2.2).
"""

import heapq
from collections import Counter, defaultdict
from itertools import pairwise

from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.compiling import kernels_ready

ID_OF_BYTE = {byte: token for token, byte in enumerate(BYTE_ORDER)}
A_LITTLE = 10_000  # bytes of different pieces: plain Python learns them in the time that it takes to load Numba
WORTH_WAITING = 200_000  # bytes of different pieces, on which plain Python takes longer than the compiler


def learn_merges_fast(words, number, progress=None):
    """`learn_merges` by Numba's kernels where they are to be had, else as it stands below."""
    size = len(words.content)
    if size >= A_LITTLE and kernels_ready(wait=size >= WORTH_WAITING):
        from tinyllm.tokenizers import bpe_training_numba

        return bpe_training_numba.learn_merges(words, number, progress)
    return learn_merges(words, number, progress)


def learn_merges(words, number, progress=None):
    """The first `number` merges of byte-pair encoding; fewer where nothing is left to merge.

    words: how often each piece of the text occurs (Words). progress: called with (merges done, number).
    Returns a list of (left id, right id); merge i makes id 256 + i.

    Tie rule: of the most frequent pairs the one with the smallest ids, left id first, in GPT-2's byte order. It is
    that of Hugging Face's BpeTrainer, and the outcome does not depend on the order of the text.
    """
    pieces = words.items()
    words = [[ID_OF_BYTE[byte] for byte in piece] for piece, _ in pieces]
    frequencies = [count for _, count in pieces]
    counts, places = count_pairs(words, frequencies)
    # The heap may hold outdated counts. Those of known pairs only fall, so what lies on top is at least as large as
    # the truth: an outdated entry is put back with its present count, and a correct one is the maximum.
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < number:
        negative, pair = heapq.heappop(heap)
        if counts[pair] != -negative:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        made = 256 + len(merges)
        merges.append(pair)
        for new in merge_everywhere(pair, made, words, frequencies, counts, places):
            heapq.heappush(heap, (-counts[new], new))
        if progress is not None:
            progress(len(merges), number)
    return merges


def count_pairs(words, frequencies):
    """How often each adjacent pair of ids occurs in the text, and the numbers of the words it occurs in."""
    counts, places = Counter(), defaultdict(set)
    for number, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += frequencies[number]
            places[pair].add(number)
    return counts, places


def merge_everywhere(pair, made, words, frequencies, counts, places):
    """Replace `pair` by the id `made` in every word, keep counts and places true; return the set of new pairs."""
    new_pairs = set()
    for number in places.pop(pair):
        word = words[number]
        merged = merge_pair(word, pair, made)
        if len(merged) == len(word):
            continue  # an earlier merge took the pair out of this word
        frequency = frequencies[number]
        for old in pairwise(word):
            counts[old] -= frequency
        for new in pairwise(merged):
            counts[new] += frequency
            if made in new:
                new_pairs.add(new)
                places[new].add(number)
        words[number] = merged
    del counts[pair]
    return new_pairs


def merge_pair(word, pair, made):
    """`word` with every occurrence of `pair`, found from left to right, replaced by `made`."""
    left, right = pair
    merged, position, last = [], 0, len(word) - 1
    while position <= last:
        if position < last and word[position] == left and word[position + 1] == right:
            merged.append(made)
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged
