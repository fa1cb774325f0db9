"""Token files: a short JSON header, then the token ids as one flat little-endian array that is mapped, not read.

    bytes 0..7      magic "tinytok" and a newline
    bytes 8..511    JSON, filled up with spaces; the header's size is a multiple of 64, so the ids are aligned
    bytes 512..     the ids, uint16 where the vocabulary fits, else uint32

The header names the tokenizer (its vocabulary hash), so that ids are never read with another one, and the bytes of text
that the ids stand for, without which a loss per token cannot become bits per byte.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import atomic_write

MAGIC = b"tinytok\n"
FORMAT_VERSION = 1
HEADER_BYTES = 512
ITEM_BYTES = {"uint16": 2, "uint32": 4}


def write_tokens(path, arrays, *, vocabulary_hash, vocab_size, num_bytes):
    """Write token ids to `path`, atomically, in one pass; returns the opened TokenFile.

    arrays: one array (any shape, integers) or an iterable of them, written one after the other.
    vocabulary_hash: the tokenizer's, in hexadecimal. num_bytes: UTF-8 bytes of the text the ids stand for.
    Raises UserError for ids outside 0 .. vocab_size - 1 and for no ids at all.
    """
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    digest, count = hashlib.sha256(), 0
    with atomic_write(path) as file:
        file.write(bytes(HEADER_BYTES))  # filled in below, when count and hash are known
        for array in [arrays] if isinstance(arrays, np.ndarray) else arrays:
            ids = checked(np.asarray(array).ravel(), vocab_size, path)
            data = ids.astype("<u2" if dtype == "uint16" else "<u4").tobytes()
            file.write(data)
            digest.update(data)
            count += ids.size
        if not count:
            raise UserError(f"there are no tokens to write to {path}: the text is empty")
        file.seek(0)
        file.write(
            header_bytes(
                {
                    "format_version": FORMAT_VERSION,
                    "vocabulary_hash": vocabulary_hash,
                    "dtype": dtype,
                    "count": count,
                    "num_bytes": int(num_bytes),
                    "sha256": digest.hexdigest(),
                }
            )
        )
    return TokenFile.open(path, verify=False)


def checked(ids, vocab_size, path):
    """The ids, if they are integers of the vocabulary."""
    if ids.size and ids.dtype.kind not in "iu":
        raise UserError(f"token ids for {path} must be integers; they are {ids.dtype}")
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        raise UserError(
            f"token ids for {path} must lie in 0..{vocab_size - 1}; they lie in {ids.min()}..{ids.max()}: "
            "vocab_size belongs to another tokenizer"
        )
    return ids


def header_bytes(fields):
    """Magic and JSON, filled up to HEADER_BYTES."""
    text = MAGIC + json.dumps(fields).encode("ascii")
    assert len(text) < HEADER_BYTES, f"the header's fields do not fit: {len(text)} bytes"
    return text.ljust(HEADER_BYTES - 1) + b"\n"


@dataclass(frozen=True)
class TokenFile:
    """An open token file.

    tokens: (count,) read-only memory map, uint16 or uint32. num_bytes: UTF-8 bytes of text they stand for.
    vocabulary_hash: of the tokenizer that made them. sha256: of the ids as stored.
    """

    path: Path
    tokens: np.memmap
    num_bytes: int
    vocabulary_hash: str
    sha256: str

    @property
    def count(self):
        """Number of tokens."""
        return len(self.tokens)

    @classmethod
    def open(cls, path, vocabulary_hash=None, verify=True):
        """Map the token file at `path`.

        vocabulary_hash: refuse a file that another tokenizer made (None: take any). verify: read it once and compare
        its SHA-256 (about a second a gigabyte). Raises UserError for a file that is missing, foreign, newer, cut short,
        damaged or another tokenizer's.
        """
        path = Path(path)
        header = read_header(path)
        if vocabulary_hash is not None and header["vocabulary_hash"] != vocabulary_hash:
            raise UserError(
                f"{path} was made with another tokenizer: its vocabulary is {header['vocabulary_hash'][:12]}…, the "
                f"model's is {vocabulary_hash[:12]}…; prepare the data again with this tokenizer"
            )
        dtype = np.dtype(header["dtype"]).newbyteorder("<")
        tokens = np.memmap(path, dtype, mode="r", offset=HEADER_BYTES, shape=(header["count"],))
        if verify and hashlib.sha256(tokens).hexdigest() != header["sha256"]:
            raise UserError(f"{path} is damaged: its tokens do not have the SHA-256 in its header; prepare it again")
        return cls(path, tokens, header["num_bytes"], header["vocabulary_hash"], header["sha256"])


def read_header(path):
    """The checked header fields of the token file at `path`, or UserError."""
    try:
        with open(path, "rb") as file:
            data = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"the token file {path} cannot be read ({error.strerror}); prepare the data first") from error
    if not data.startswith(MAGIC):
        raise UserError(f"{path} is not a token file of tinyllm (it does not begin with {MAGIC!r})")
    try:
        header = json.loads(data[len(MAGIC) :])
        version = int(header["format_version"])
        # A newer header may have other fields; the version is checked before they are read.
        expected = HEADER_BYTES + header["count"] * ITEM_BYTES[header["dtype"]] if version <= FORMAT_VERSION else None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: its header cannot be read; prepare it again") from None
    if expected is None:
        raise UserError(
            f"{path} has format_version {version}, this tinyllm reads up to {FORMAT_VERSION}; upgrade tinyllm"
        )
    if size != expected or size == HEADER_BYTES:
        raise UserError(f"{path} is cut short or damaged: {size:,} bytes, expected {expected:,}; prepare it again")
    return header
