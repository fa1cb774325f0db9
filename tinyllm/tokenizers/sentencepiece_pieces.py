"""The pieces of a SentencePiece vocabulary: how they are spelled, and which two of them make a third."""

import re

from tinyllm.errors import UserError

SPACE = "▁"  # U+2581, which stands for a space
BYTE = re.compile("<0x([0-9A-F]{2})>")


def byte_of(piece):
    """The byte that a piece such as "<0x0A>" stands for, or None for a piece of text."""
    found = BYTE.fullmatch(piece)
    return int(found[1], 16) if found else None


def spell_byte(byte):
    """`spell_byte(10) == "<0x0A>"`."""
    return f"<0x{byte:02X}>"


def merges_by_score(ids, scores):
    """Dict (left id, right id) -> (rank, joined id), in all ways in which two pieces make a third.

    ids: dict piece -> id; scores: dict id -> float. Equal scores have equal ranks: then the leftmost is joined first.
    """
    ids = {piece: token for piece, token in ids.items() if byte_of(piece) is None}
    ranks = {score: rank for rank, score in enumerate(sorted({scores[token] for token in ids.values()}, reverse=True))}
    merges = {}
    for piece, joined in ids.items():
        for cut in range(1, len(piece)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None:
                merges[left, right] = (ranks[scores[joined]], joined)
    return merges


def scores_of_merges(pieces, ids, merges):
    """Dict id -> score, from which `merges_by_score` makes these merges (dict as its own, one rank each).

    UserError where no scores would: the merges lack a way to make a piece, or put those of two pieces in one another.
    (Of several ways to make one piece the leftmost is then joined first, and not the first in the list.)
    """
    first = {}
    for rank, joined in sorted(merges.values()):
        first.setdefault(joined, rank)
    scores = {token: -float(first.get(token, len(merges))) for token in pieces}
    by_score = merges_by_score(ids, scores)
    ranks = [by_score.get(pair, (-1, -1))[0] for pair in sorted(merges, key=merges.get)]
    if len(by_score) != len(merges) or min(ranks, default=0) < 0 or ranks != sorted(ranks):
        raise UserError("there are no scores from which these merges would follow; keep the tokenizer.json")
    return scores


def merges_in_order(pieces, ids, pairs):
    """The same from a list of pairs of ids in the order of joining. UserError where two pieces make none."""
    merges = {}
    for rank, (left, right) in enumerate(pairs):
        joined = ids.get(pieces[left] + pieces[right])
        if joined is None:
            raise UserError(f"merge {rank} joins {pieces[left]!r} and {pieces[right]!r} to what is no piece; add it")
        if (left, right) in merges:
            raise UserError(f"merge {rank} ({pieces[left]!r}, {pieces[right]!r}) occurs twice; name each once")
        merges[left, right] = (rank, joined)
    return merges
