"""The inner step of byte-pair encoding: which tokens the bytes of one piece become.

Source: Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2.
"""

import heapq


def merge_ids(ids, merges):
    """Merge the adjacent pair that was learned first (leftmost on a tie) until no learned pair is left.

    ids: token ids of one piece's bytes, n of them. merges: dict (left id, right id) -> (rank, merged id).
    Returns the list of token ids. Costs O(n log n): the tokens form a linked list, the mergeable pairs a heap.
    """
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
