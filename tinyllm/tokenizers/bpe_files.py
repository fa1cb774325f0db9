"""Byte-level BPE vocabularies in the files of OpenAI: GPT-2's pair of files and tiktoken's rank files."""

import base64
import re

from tinyllm.errors import UserError
from tinyllm.files import read_text
from tinyllm.tokenizers.bpe_merging import merge_ids
from tinyllm.tokenizers.byte_symbols import spell
from tinyllm.tokenizers.huggingface import ordinary_part, tokens_of

VERSION = "#version: 0.2"  # the first line of every vocab.bpe
RANK_LINE = re.compile(r"(\S+) (\d{1,10})", re.ASCII)


def read_lines(path):
    """Dict line number (from 1) -> line of a text file, without empty lines; UserError where it is no UTF-8 text."""
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    return {number: line for number, line in enumerate(lines, 1) if line}


def parts_of_gpt2(vocabulary, lines):
    """(tokens, merges, special tokens) of GPT-2's encoder.json (its content) and vocab.bpe (its lines, as read_lines).

    An entry that is neither one byte nor made by a merge can only be a special token: the files have no other word
    for it.
    """
    if not isinstance(vocabulary, dict):
        raise UserError(f"the vocabulary must be an object of tokens and ids, got a {type(vocabulary).__name__}")
    merges = {}
    for number, line in lines.items():
        if line.startswith("#version"):
            continue
        sides = tuple(line.split(" "))
        unknown = [side for side in sides if side not in vocabulary]
        if len(sides) != 2 or unknown:
            reason = f"{unknown[0]!r} is not in the vocabulary" if unknown else "expected two tokens and one space"
            raise UserError(f"line {number} of the merges ({line!r}): {reason}; do the two files belong together?")
        merges[number] = sides
    made = {left + right for left, right in merges.values()}
    special_tokens = {name: token for name, token in vocabulary.items() if len(name) > 1 and name not in made}
    for number, sides in merges.items():
        if not special_tokens.keys().isdisjoint(sides):
            raise UserError(
                f"line {number} of the merges ({lines[number]!r}) joins what no byte or merge makes; add it"
            )
    pairs = [(vocabulary[left], vocabulary[right]) for left, right in merges.values()]
    return tokens_of(ordinary_part(vocabulary, special_tokens)), pairs, special_tokens


def gpt2_files(tokens, merges, special_tokens):
    """(content of encoder.json, lines of vocab.bpe); UserError where `parts_of_gpt2` would read something else."""
    vocabulary = {spell(content): token for token, content in tokens.items()} | special_tokens
    lines = [VERSION, *(f"{spell(tokens[left])} {spell(tokens[right])}" for left, right in merges)]
    one_letter = any(len(name) == 1 for name in special_tokens)
    if one_letter or parts_of_gpt2(vocabulary, dict(enumerate(lines, 1))) != (tokens, merges, special_tokens):
        raise UserError(
            "GPT-2's files hold single bytes, what merges make, and special tokens of several letters; use save"
        )
    return vocabulary, lines


def parts_of_tiktoken(lines):
    """(tokens, merges) of a tiktoken rank file: lines (as read_lines) of a token in base64 and its id, also its rank.

    The file does not say which two tokens a token was merged from; what its bytes become under all earlier merges are
    those two.
    """
    tokens, ids, numbers = {}, {}, {}
    for number, line in lines.items():
        found = RANK_LINE.fullmatch(line)
        if not found:
            raise UserError(f"line {number} ({line!r}) is not a token in base64, one space and an id; is it cut off?")
        token = int(found[2])
        try:
            content = base64.b64decode(found[1], validate=True)
        except ValueError as error:
            raise UserError(f"line {number}: {found[1]!r} is not base64 ({error}); is the file damaged?") from None
        if not content or content in ids or token in tokens:
            what = f"the token {content!r}" if content in ids else f"the id {token}" if token in tokens else "no token"
            raise UserError(f"line {number} ({line!r}): a token or an id occurs twice, or is none: {what}")
        tokens[token], ids[content], numbers[token] = content, token, number
    return tokens, merges_by_rank(tokens, ids, numbers)


def merges_by_rank(tokens, ids, numbers):
    """The merges (list of id pairs) that make the tokens of several bytes, the lowest id first.

    numbers: dict id -> line of the file, for messages.
    """
    missing = next((byte for byte in range(256) if bytes([byte]) not in ids), None)
    if missing is not None:
        raise UserError(
            f"expected a byte-level vocabulary, which has all 256 bytes; the byte {missing:#04x} is missing"
        )
    merges = {}
    for token, content in sorted(tokens.items()):
        if len(content) > 1:
            parts = merge_ids([ids[content[place : place + 1]] for place in range(len(content))], merges)
            if len(parts) != 2:
                raise UserError(f"line {numbers[token]}: the token {content!r} is not made of two earlier tokens")
            merges[tuple(parts)] = (token, token)
    return list(merges)


def tiktoken_lines(tokens, merges):
    """The lines of a rank file; UserError where `parts_of_tiktoken` would read something else."""
    lines = [f"{base64.b64encode(content).decode('ascii')} {token}" for token, content in sorted(tokens.items())]
    if parts_of_tiktoken(dict(enumerate(lines, 1))) != (tokens, merges):
        raise UserError(
            "a rank file holds merges in the order of the ids of what they make, and these are not; use save"
        )
    return lines
