"""Are the words of a sample real words, and is it the model's own text or the training text learned by heart?"""

import re
from dataclasses import dataclass

import numpy as np

from tinyllm.data.batches import splitmix64

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
"""A word: a maximal run of letters, with apostrophes inside (don't). Words are compared without regard to case."""


@dataclass(frozen=True)
class WordCheck:
    """words: number of whole words in the samples; invented: those that the corpus lacks, as often as they occur."""

    words: int
    invented: list[str]

    @property
    def share(self):
        """Share of the words that occur in the corpus, 0 .. 1; 1 where there are no words."""
        return 1 - len(self.invented) / self.words if self.words else 1.0


def check_words(samples, documents):
    """WordCheck of `samples` (strings) against `documents` (strings).

    A word that touches the beginning or end of a sample may be cut in two and is left out.
    """
    known = {word for document in documents for word in WORD.findall(document.casefold())}
    words = [match[0] for sample in samples for match in WORD.finditer(sample) if is_whole(match)]
    return WordCheck(len(words), [word for word in words if word.casefold() not in known])


def is_whole(match):
    """True if there is something before and after the word, so that it was not cut."""
    return match.start() > 0 and match.end() < len(match.string)


@dataclass(frozen=True)
class CopiedRun:
    """words: length of the run; text: the run as it stands in the sample; sample: which one (0 if words is 0)."""

    words: int
    text: str
    sample: int


def longest_copied_run(samples, documents):
    """The longest run of consecutive words of a sample that stands, word for word, in one document.

    Case, punctuation and space between the words do not matter. Returns CopiedRun, the first of equally long ones.
    If a run of n words was copied then so was one of n - 1: a binary search over n, each step comparing the hashes of
    all runs of n words. Takes about a fifth of a second for 2 MB of text.
    """
    matches = [list(WORD.finditer(sample)) for sample in samples]
    words = [[match[0].casefold() for match in found] for found in matches]
    numbers = {word: n for n, word in enumerate(sorted(set().union(*words)), 1)}
    copies = numbered(words, numbers)
    originals = numbered((WORD.findall(document.casefold()) for document in documents), numbers)

    length, start = 0, 0  # a run that was copied
    impossible = max(map(len, words), default=0) + 1
    while impossible - length > 1:
        middle = (length + impossible) // 2
        found = first_common_run(copies, originals, middle)
        if found is None:
            impossible = middle
        else:
            length, start = middle, found
    if not length:
        return CopiedRun(0, "", 0)
    sample = int(np.count_nonzero(copies[:start] == 0))
    first = start - sum(len(found) + 1 for found in matches[:sample])
    run = matches[sample][first : first + length]
    return CopiedRun(length, samples[sample][run[0].start() : run[-1].end()], sample)


def numbered(texts, numbers):
    """All words of all texts as one array of their numbers, with 0 for words without one and after each text."""
    return np.array([number for words in texts for number in (*(numbers.get(word, 0) for word in words), 0)], np.int64)


def first_common_run(copies, originals, length):
    """Where the first run of `length` numbers in `copies` that is also in `originals` begins, or None."""
    (copy_at, copy_hashes), (original_at, original_hashes) = run_hashes(copies, length), run_hashes(originals, length)
    for candidate in np.flatnonzero(np.isin(copy_hashes, original_hashes)):
        run = copies[copy_at[candidate] :][:length]
        for start in original_at[original_hashes == copy_hashes[candidate]]:
            if np.array_equal(run, originals[start : start + length]):
                return int(copy_at[candidate])
    return None


BASE = 0xD1342543DE82EF95  # any odd number has an inverse modulo 2^64


def run_hashes(numbers, length):
    """(starts, hashes) of all runs of `length` numbers without a 0 among them.

    The hash of a run that starts at i is sum_j h(numbers[i + j]) BASE^j modulo 2^64, from one running sum.
    """
    if len(numbers) < length:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    powers = np.cumprod(np.full(len(numbers), BASE, np.uint64))
    inverses = np.cumprod(np.full(len(numbers), pow(BASE, -1, 1 << 64), np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(splitmix64(numbers.astype(np.uint64)) * powers)])
    zeros = np.concatenate([[0], np.cumsum(numbers == 0)])
    starts = np.flatnonzero(zeros[length:] == zeros[:-length])
    return starts, (sums[starts + length] - sums[starts]) * inverses[starts]
