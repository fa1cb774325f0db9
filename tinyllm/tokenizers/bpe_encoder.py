"""Encoding by kernels: the tables of one vocabulary, and what is remembered from one text to the next."""

from itertools import accumulate

import numpy as np

from tinyllm.errors import UserError
from tinyllm.tokenizers import bpe_kernels
from tinyllm.tokenizers.texts import utf8
from tinyllm.tokenizers.unicode.categories import character_classes

REMEMBERED_PIECES = 2**15
"""By each thread: 2 MB."""

SHORT_TEXT = 2**16  # bytes; the ids of a shorter one need no array of their own


class KernelEncoder:
    """Text to ids with one vocabulary. May be used by several threads at once."""

    def __init__(self, tokens, byte_ids, merges, machine, ignore_merges=False):
        """tokens: dict id -> bytes. byte_ids: the ids of the 256 bytes. merges: dict (left id, right id) -> (rank,
        merged id). machine: the number of a named pattern (`patterns.MACHINES`). ignore_merges: as `BPETokenizer` says.
        Errors: UserError where that would look up tokens that are longer than the tables have room for.
        """
        self._tables = filled_tables(tokens, byte_ids, merges, machine, ignore_merges)
        self._kernel = bpe_kernels.encode.compiled
        self._idle = []  # (memory, room for ids), a pair for each thread that ever encoded while others did

    def encode(self, text):
        """The list of token ids of a text."""
        data = utf8(text)
        memory, room = own = self._take_room()
        ids = room if len(data) <= SHORT_TEXT else np.empty(len(data), np.int32)
        found = ids[: self._kernel(data, self._tables, memory, ids)].tolist()
        self._idle.append(own)
        return found

    def encode_to_array(self, text):
        """The same as an int32 array."""
        data = utf8(text)
        memory, room = own = self._take_room()
        if len(data) <= SHORT_TEXT:
            found = room[: self._kernel(data, self._tables, memory, room)].copy()
        else:
            found = np.empty(len(data), np.int32)
            # Gives the rest back without a copy.
            found.resize(self._kernel(data, self._tables, memory, found), refcheck=False)
        self._idle.append(own)
        return found

    def _take_room(self):
        """What no other thread uses until it is given back."""
        try:
            return self._idle.pop()
        except IndexError:
            return bpe_kernels.new_memory(REMEMBERED_PIECES), np.empty(SHORT_TEXT, np.int32)


def filled_tables(tokens, byte_ids, merges, machine, ignore_merges):
    """The `tables` of bpe_kernels for one vocabulary."""
    slots = [power_of_two_above(2 * len(of)) for of in (merges, tokens)]
    tables = bpe_kernels.new_tables(*slots, machine, byte_ids, character_classes())
    starts = np.array([0, *accumulate(map(len, tokens.values()))], np.int64)
    rows = np.array([(*pair, *made) for pair, made in merges.items()], np.int64).reshape(len(merges), 4)
    numbers, contents = np.array([*tokens], np.int64), b"".join(tokens.values())
    longest = np.empty(max(map(len, tokens.values())), np.int32)
    memory = bpe_kernels.new_memory(1)
    too_long = bpe_kernels.fill_tables(contents, starts, numbers, rows, tables, longest, memory, int(ignore_merges))
    if too_long:
        raise UserError(
            f"{too_long} tokens of more than {bpe_kernels.LONGEST_KNOWN} bytes are made by no merges, and the kernels "
            'look up shorter ones only; use the rung "python" or "numpy"'
        )
    return tables


def power_of_two_above(number):
    return 1 << number.bit_length()
