"""Byte-level BPE vocabularies in the files of OpenAI: GPT-2's pair of files and tiktoken's rank files."""

import base64
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.tokenizers.bpe_merging import merge_ids
from tinyllm.tokenizers.huggingface import from_spellings


def read_lines(path):
    """The lines of a UTF-8 text file that are not empty; UserError where there is no such text."""
    try:
        return [line for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); is it another file, or damaged?") from None


def parts_of_gpt2(vocabulary, lines):
    """(tokens, merges, special tokens) of GPT-2's encoder.json (its content) and vocab.bpe (its lines).

    An entry that is neither one byte nor made by a merge can only be a special token: the files have no other word
    for it.
    """
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    made = {left + right for left, right in merges}
    special_tokens = {name: token for name, token in vocabulary.items() if len(name) > 1 and name not in made}
    return *from_spellings(vocabulary, merges, special_tokens), special_tokens


def parts_of_tiktoken(lines):
    """(tokens, merges) of a tiktoken rank file: lines of a token in base64 and its id, which is also its rank.

    The file does not say which two tokens a token was merged from; what its bytes become under all earlier merges are
    those two.
    """
    tokens = {}
    for line in lines:
        content, token = line.split(" ")
        tokens[int(token)] = base64.b64decode(content, validate=True)
    ids = {content: token for token, content in tokens.items()}
    if len(ids) != len(lines):
        raise UserError("a token or an id occurs twice")
    merges = {}
    for token, content in sorted(tokens.items()):
        if len(content) > 1:
            parts = merge_ids([ids[content[place : place + 1]] for place in range(len(content))], merges)
            if len(parts) != 2:
                raise UserError(f"the token {content!r} is not made of two earlier tokens")
            merges[tuple(parts)] = (token, token)
    return tokens, list(merges)
