"""llama2.c's tokenizer.bin: SentencePiece's pieces and scores, one after the other, in the order of their ids.

int32, the length of the longest piece; then of each piece float32 score, int32 length, the bytes (UTF-8). All little
endian. A space is written " ", the ids 0, 1, 2 are unknown, begin and end, 3 to 258 the bytes: run.c counts on it.
"""

import math
import struct

import numpy as np

from tinyllm.errors import UserError
from tinyllm.tokenizers.sentencepiece_pieces import SPACE, spell_byte

SPECIAL = {"<unk>": b"<unk>", "<s>": b"\n<s>\n", "</s>": b"\n</s>\n"}
BYTES = {3 + byte: spell_byte(byte) for byte in range(256)}


def parts_of_llama2c(data):
    """(pieces, scores, special tokens) of the bytes of a tokenizer.bin: dicts id -> str, id -> float, name -> id."""
    entries = list(entries_of_llama2c(data))
    begin = [piece for piece, _ in entries[: len(SPECIAL)]]
    if begin != list(SPECIAL.values()):
        raise UserError(f"expected the entries <unk>, <s> and </s> at the beginning, got {begin}; is it another file?")
    pieces = {}
    for token, (piece, _) in list(enumerate(entries))[len(SPECIAL) :]:
        try:
            pieces[token] = piece.decode("utf-8").replace(" ", SPACE)
        except UnicodeDecodeError as error:
            raise UserError(f"entry {token} is not UTF-8 ({error}); the file is damaged, fetch it again") from None
    check_bytes(pieces)
    scores = {token: entries[token][1] for token in pieces}
    return pieces, scores, {name: token for token, name in enumerate(SPECIAL)}


def entries_of_llama2c(data):
    """Yield (bytes, score) of each entry; UserError for a file that ends in one, or says what cannot be."""
    if len(data) < 4:
        raise UserError(f"expected a length of 4 bytes at the beginning, got {len(data)} bytes; fetch the file again")
    (longest,) = struct.unpack_from("<i", data)
    at, token = 4, 0
    while at < len(data):
        if len(data) - at < 8:
            raise UserError(f"the file ends within entry {token} (at byte {at}); it was cut off, fetch it again")
        score, length = struct.unpack_from("<fi", data, at)
        if not math.isfinite(score):
            raise UserError(
                f"the score of entry {token} (at byte {at}) is {score}; the file is damaged, fetch it again"
            )
        if not 0 < length <= longest:
            raise UserError(
                f"entry {token} (at byte {at}) has length {length}, not 1 to {longest}; the file is damaged"
            )
        at += 8 + length
        if at > len(data):
            raise UserError(
                f"the file ends within entry {token} (at byte {at - length}); it was cut off, fetch it again"
            )
        yield data[at - length : at], score
        token += 1


def write_llama2c(pieces, scores, special_tokens):
    """The bytes of a tokenizer.bin; UserError where llama2.c would understand another vocabulary."""
    if special_tokens != {name: token for token, name in enumerate(SPECIAL)}:
        raise UserError(f"tokenizer.bin has the special tokens <unk>, <s>, </s> as 0, 1, 2; this one: {special_tokens}")
    check_bytes(pieces)
    if set(pieces) != set(range(len(SPECIAL), len(SPECIAL) + len(pieces))):
        raise UserError("tokenizer.bin cannot have gaps in the ids, and this vocabulary has one; use save")
    texts = [*SPECIAL.values(), *(pieces[token].replace(SPACE, " ").encode("utf-8") for token in sorted(pieces))]
    parts = [struct.pack("<i", max(map(len, texts)))]
    for token, text in enumerate(texts):
        score = scores.get(token, 0.0)
        if score != float(np.float32(score)):
            raise UserError(f"tokenizer.bin has float32 scores, and that of id {token} ({score!r}) is none; round them")
        parts += struct.pack("<fi", score, len(text)), text
    return b"".join(parts)


def check_bytes(pieces):
    """UserError unless the ids 3 to 258 are the bytes."""
    for token, spelling in BYTES.items():
        if pieces.get(token) != spelling:
            raise UserError(f"expected {spelling} as entry {token}, got {pieces.get(token)!r}; llama2.c needs it there")
