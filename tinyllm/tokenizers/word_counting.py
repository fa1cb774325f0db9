"""From texts to `Words`: how often each piece occurs, in bounded memory, on all cores.

The texts are read once, as they come, and gathered into chunks of a million bytes. Each chunk is counted by itself,
and the counts are added up in the order of the chunks. So the outcome is the same on any number of cores.
"""

import itertools
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tinyllm.errors import UserError
from tinyllm.tokenizers.batches import usable_cores
from tinyllm.tokenizers.compiling import kernels_ready
from tinyllm.tokenizers.patterns import machine_of, pattern_text, strict_splitter
from tinyllm.tokenizers.safe_cuts import parts
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, number_special_tokens, ordinary_spans
from tinyllm.tokenizers.texts import each_text, utf8
from tinyllm.tokenizers.words import Words

CHUNK = 1 << 20  # bytes of text that are counted together: their words' table fits into a core's cache
A_FEW_PAGES = 100_000  # bytes of text: plain Python counts them in the time that it takes to load Numba
WORTH_WAITING = 8  # chunks, on which plain Python takes longer than the compiler
ROOM = 50_000_000  # bytes of different pieces; learning takes some 33 bytes of memory for each


def count_words(texts, pattern="gpt4", special_tokens=(END_OF_TEXT,), *, room=ROOM, threads=None):
    """How often each piece of the texts occurs: Words.

    texts: an iterable of str, read once; a generator may make them as it goes. pattern: as in `BPETokenizer.train`.
    special_tokens: names; where one stands in a text it separates and is not counted. threads: how many count at the
    same time, all usable cores by default; a pattern of the user's own is read by one.

    room: how many bytes of different pieces may be held, one more for each piece. A corpus that has more loses the
    rarest pieces it has had so far, down to half the room, each time the room is full; `Words.dropped` says how many.
    Only then do the counts depend on the order of the texts.

    Errors: UserError for a text that is not one, a room or a number of threads below 1, a pattern that is not one or
    does not cover the texts.
    """
    if not 0 < room < 2**30:
        raise UserError(f"room is a number of bytes from 1 to {2**30 - 1:,}; got {room!r}")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, got {threads!r}")
    special_tokens = list(number_special_tokens(special_tokens, 0))
    pattern = pattern_text(pattern)
    machine, split = machine_of(pattern), strict_splitter(pattern)
    chunks = gathered(texts, special_tokens, can_cut=machine is not None)
    first = list(itertools.islice(chunks, WORTH_WAITING))
    little = sum(len(part) for chunk in first for part in chunk) < A_FEW_PAGES
    compiled = not little and kernels_ready(wait=len(first) == WORTH_WAITING)
    if compiled:
        from tinyllm.tokenizers.word_tables import WordTable
    table, dropped = WordTable() if compiled else PlainTable(), 0

    def count(chunk):
        if compiled and machine is not None:
            return counted_by_machine(chunk, machine)
        return Words.of(Counter(piece for part in chunk for piece in split(part.decode("utf-8"))))

    threads = (threads or usable_cores()) if compiled and machine is not None else 1
    for words in in_order(count, itertools.chain(first, chunks), threads):
        table.add(words)
        if table.num_bytes() > room:
            kept, lost = without_the_rarest(table.words(), room // 2)
            table = type(table)()
            table.add(kept)
            dropped += lost
    words = table.words()
    return Words(words.content, words.starts, words.counts, dropped)


def counted_by_machine(chunk, machine):
    """The Words of a chunk, cut by the machine of a named pattern."""
    from tinyllm.tokenizers.word_tables import WordTable

    table = WordTable()
    table.count(machine, b"".join(chunk), np.cumsum([len(part) for part in chunk], dtype=np.int64))
    return table.words()


def gathered(texts, special_tokens, can_cut):
    """Lists of parts of texts, as UTF-8, of about CHUNK bytes together; texts are cut where that changes no piece."""
    chunk, size = [], 0
    for text in each_text(texts):
        for start, stop in ordinary_spans(special_tokens, text):
            for part in parts(text, start, stop, CHUNK) if can_cut else [text[start:stop]]:
                chunk.append(encoded(part, text))
                size += len(chunk[-1])
                if size >= CHUNK:
                    yield chunk
                    chunk, size = [], 0
    if chunk:
        yield chunk


def encoded(part, text):
    """A part of a text as UTF-8; UserError naming the place in the text where that is not possible."""
    try:
        return part.encode("utf-8")
    except UnicodeEncodeError:
        return utf8(text)


def in_order(function, items, threads):
    """Yield function(item) for each item, in order; so many run at the same time, and few wait."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        running = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def without_the_rarest(words, room):
    """(the most frequent words that together take up at most `room`, how many occurrences the others have).

    Of words that occur equally often all are kept or none.
    """
    sizes = np.diff(words.starts) + 1
    order = np.argsort(-words.counts, kind="stable")
    fitting = np.searchsorted(np.cumsum(sizes[order]), room, side="right")
    rarest = words.counts[order[fitting]] if fitting < len(order) else 0
    kept = words.counts > rarest
    starts = np.concatenate([[0], np.cumsum(sizes[kept] - 1)])
    content = words.content[np.repeat(kept, sizes - 1)]
    return Words(content, starts, words.counts[kept]), int(words.counts[~kept].sum())


class PlainTable:
    """Words and how often each occurred, in a dict: what `word_tables.WordTable` is without Numba."""

    def __init__(self):
        self.counts, self.size = Counter(), 0

    def add(self, words):
        """Add the counts of other words (Words)."""
        for word, count in words.items():
            if word not in self.counts:
                self.size += len(word) + 1
            self.counts[word] += count

    def num_bytes(self):
        """The bytes of all words, and one for each."""
        return self.size

    def words(self):
        """What was counted, as Words."""
        return Words.of(self.counts)
