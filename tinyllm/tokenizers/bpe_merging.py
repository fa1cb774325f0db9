"""The inner step of byte-pair encoding: which tokens the bytes of one piece become.

Source: Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.
"""

import heapq
import math
from itertools import pairwise

SHORT = 50  # ids; a longer piece is merged with a heap
NO_MERGE = (math.inf, None)


def merge_ids(ids, merges):
    """Merge the adjacent pair that was learned first (leftmost on a tie) until no learned pair is left.

    ids: token ids of one piece's bytes. merges: dict (left id, right id) -> (rank, merged id). Returns the list of
    token ids.
    """
    if len(ids) > SHORT:
        return merge_long(ids, merges)
    ids = list(ids)
    ranks = [merges.get(pair, NO_MERGE)[0] for pair in pairwise(ids)]  # of what each id and the next could become
    while ranks and (first := min(ranks)) < math.inf:
        place = ranks.index(first)
        ids[place : place + 2] = [merges[ids[place], ids[place + 1]][1]]
        del ranks[place]
        if place > 0:
            ranks[place - 1] = merges.get((ids[place - 1], ids[place]), NO_MERGE)[0]
        if place < len(ranks):
            ranks[place] = merges.get((ids[place], ids[place + 1]), NO_MERGE)[0]
    return ids


def merge_long(ids, merges):
    """The same for n ids in n log n steps: the tokens form a linked list, the mergeable pairs a heap."""
    n = len(ids)
    ids = list(ids)
    after = list(range(1, n + 1))  # position of the next token; n is the end
    before = list(range(-1, n - 1))
    heap = []

    def offer(left, right):
        found = merges.get((ids[left], ids[right]))
        if found is not None:
            heapq.heappush(heap, (found[0], left, right, ids[left], ids[right], found[1]))

    for left in range(n - 1):
        offer(left, left + 1)
    while heap:
        _, left, right, left_id, right_id, merged = heapq.heappop(heap)
        # A pair is stale once either side took part in another merge.
        if ids[left] != left_id or ids[right] != right_id or after[left] != right:
            continue
        ids[left], ids[right] = merged, None
        after[left] = following = after[right]
        if following < n:
            before[following] = left
            offer(left, following)
        if before[left] >= 0:
            offer(before[left], left)
    return [token for token in ids if token is not None]
