"""The different pieces of a corpus, each once, as bytes that lie one after another, and how often each occurs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Words:
    """What a trainer reads: word i is `content[starts[i] : starts[i + 1]]` and occurs `counts[i]` times.

    content: uint8, the bytes of all words. starts: int64, one more than there are words. counts: int64.
    dropped: how many occurrences of rare words were left out, because there was no room for all (`count_words`).
    """

    content: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    dropped: int = 0

    @classmethod
    def of(cls, counts):
        """The words of a dict piece (str, or the bytes of one) -> how often it occurs."""
        pieces = [piece.encode("utf-8") if isinstance(piece, str) else piece for piece in counts]
        return cls(
            np.frombuffer(b"".join(pieces), np.uint8),
            np.cumsum([0, *map(len, pieces)], dtype=np.int64),
            np.fromiter(counts.values(), np.int64, len(counts)),
        )

    def items(self):
        """Pairs of a word's bytes and its count."""
        content = self.content.tobytes()
        spans = pairwise(self.starts.tolist())
        return [(content[start:stop], count) for (start, stop), count in zip(spans, self.counts.tolist(), strict=True)]

    def note(self):
        """What to tell the user where words were dropped."""
        return (
            f"the text has more different pieces than there is room for: {self.dropped:,} occurrences of rare ones "
            f"were not counted, {int(self.counts.sum()):,} were"
        )

    def __len__(self):
        return len(self.counts)
