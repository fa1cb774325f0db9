"""Keep freed memory for the next step instead of handing it back to the system."""

import ctypes
import sys

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
GIGABYTE = 2**30


def keep_freed_memory():
    """Tell glibc's allocator to reuse large blocks. Returns whether that was possible (Linux with glibc).

    A training step makes and frees the same large arrays again and again. By default glibc gives such memory back to
    the system at once, and each new array then costs a page fault for every 4 KB: a third of the step, measured in
    docs/benchmarks.md. The price: the process keeps the memory of its largest step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    # Older glibc refuses thresholds above 32 MB; newer takes any.
    large = mallopt(M_MMAP_THRESHOLD, GIGABYTE) or mallopt(M_MMAP_THRESHOLD, GIGABYTE // 32)
    return bool(large and mallopt(M_TRIM_THRESHOLD, 2 * GIGABYTE - 1) and mallopt(M_TOP_PAD, GIGABYTE // 16))
