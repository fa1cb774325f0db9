"""Byte-pair encoding with NumPy arrays: all pieces of a text at once, each one merge further in every round.

The rung between `bpe_merging`, one piece at a time in plain Python, and `bpe_kernels`, the same compiled.
"""

import numpy as np

from tinyllm.tokenizers.texts import check_text


class ArrayEncoder:
    """Text to ids with one vocabulary."""

    def __init__(self, byte_ids, merges, split, whole_pieces=None):
        """byte_ids: the ids of the 256 bytes. merges: dict (left id, right id) -> (rank, merged id). split: a function
        from text to pieces. whole_pieces: dict bytes -> id of pieces that are not merged but looked up.
        """
        self._split, self._whole_pieces = split, whole_pieces or {}
        self._byte_ids = np.array(byte_ids, np.int64)
        rows = np.array([(left << 32 | right, *made) for (left, right), made in merges.items()], np.int64).reshape(
            -1, 3
        )
        self._pairs, self._ranks, self._merged = rows[np.argsort(rows[:, 0])].T

    def encode(self, text):
        """The list of token ids of a text."""
        return self.encode_to_array(text).tolist()

    def encode_to_array(self, text):
        """The same as an int32 array."""
        check_text(text)
        pieces = [piece.encode("utf-8") for piece in self._split(text)]
        ids = self._byte_ids[np.frombuffer(b"".join(pieces), np.uint8)]
        piece_of = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        if self._whole_pieces:
            whole = np.array([self._whole_pieces.get(piece, -1) for piece in pieces], np.int64)[piece_of]
            first = np.diff(piece_of, prepend=-1) > 0
            ids, kept = np.where(whole < 0, ids, whole), (whole < 0) | first
            ids, piece_of = ids[kept], piece_of[kept]
        while True:
            left, found = self._next_merges(ids, piece_of)
            if not len(left):
                return ids.astype(np.int32)
            ids[left] = self._merged[found]
            ids, piece_of = np.delete(ids, left + 1), np.delete(piece_of, left + 1)

    def _next_merges(self, ids, piece_of):
        """Where each piece merges next (the place of its left token, at most one a piece), and the rows of the merges.

        ids: (n,) tokens of all pieces; piece_of: (n,) the piece each belongs to, ascending.
        """
        neighbours = np.flatnonzero(piece_of[1:] == piece_of[:-1])
        pairs = ids[neighbours] << 32 | ids[neighbours + 1]
        rows = np.searchsorted(self._pairs, pairs)
        known = np.append(self._pairs, -1)[rows] == pairs
        left, rows = neighbours[known], rows[known]
        # By piece, then rank, then place: the first of each piece is its next merge.
        order = np.lexsort((left, self._ranks[rows], piece_of[left]))
        _, first = np.unique(piece_of[left][order], return_index=True)
        return left[order][first], rows[order][first]
