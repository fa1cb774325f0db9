"""Work on many texts by all cores: threads, since compiled kernels let each other run."""

import os
from concurrent.futures import ThreadPoolExecutor

CHARACTERS_AT_ONCE = 2**18
"""That a thread takes before it asks for more: a few milliseconds of encoding, a hundred times what asking costs."""


def usable_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_all_cores(work, texts):
    """`[work(text) for text in texts]`, several at a time; texts: a list of str."""
    groups = list(grouped(texts))
    workers = min(usable_cores(), len(groups))
    if workers < 2:
        return [work(text) for text in texts]
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda group: [work(text) for text in group], groups)
        return [result for results in done for result in results]


def grouped(texts):
    """Lists of neighbouring texts, each of about CHARACTERS_AT_ONCE."""
    group, size = [], 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
