"""What a tokenizer does with a text, to be looked at: its tokens in colours, and several tokenizers side by side."""

import shutil
import sys
import time

import numpy as np

from tinyllm.commands.console import print_table
from tinyllm.errors import UserError

COLOURS = ("black on cyan", "black on yellow", "black on green", "black on magenta")  # any terminal has these
VISIBLE = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "←"})
AT_MOST = 4_000_000  # bytes of a text that are compared: enough for any of the figures


def text_from(words):
    """The text of an argument, where - stands for standard input."""
    if words != "-":
        return words
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 ({error}); convert it first, for example with iconv") from None


def print_tokens(tokenizer, ids):
    """Print token ids, each below the piece of text it stands for; neighbours have different colours on a terminal.

    Spaces are shown as ·, line breaks as ↵, tabs as →, bytes that are no whole character as \\xNN.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    coloured = console.is_terminal and not console.no_color
    width = shutil.get_terminal_size().columns
    line = (Text(), Text())
    for place, token in enumerate(ids):
        piece = visible(tokenizer, token)
        room = max(cell_len(piece), len(str(token)))
        if line[0].cell_len and line[0].cell_len + room + 1 > width:
            flush(console, line)
            line = (Text(), Text())
        line[0].append(piece + " " * (room - cell_len(piece)), COLOURS[place % len(COLOURS)] if coloured else None)
        line[1].append(f"{token:<{room}}", "dim" if coloured else None)
        for half in line:
            half.append(" ")
    flush(console, line)


def flush(console, line):
    """Print the pieces of a line, and their ids below them."""
    for half in line:
        half.rstrip()
        if half:
            console.print(half)


def visible(tokenizer, token):
    """A token as one can see it; a special one by its name."""
    content = tokenizer.token_bytes(token)
    text = content.decode("utf-8", "backslashreplace").translate(VISIBLE)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_comparison(tokenizers, texts):
    """A row for each of `tokenizers` (dict name -> Tokenizer): what it makes of `texts` (list of str)."""
    texts = first_bytes(texts, AT_MOST)
    rows = [("tokenizer", "tokens", "bytes/token", "size", "in use", "lossless", "MB/s")]
    for name, tokenizer in tokenizers.items():
        row = measured(tokenizer, texts)
        rows.append(
            (
                name if len(name) <= 30 else "…" + name[-29:],
                f"{row['tokens']:,}",
                f"{row['bytes_per_token']:.3f}",
                f"{tokenizer.vocab_size:,}",
                f"{row['used']:.1%}",
                "yes" if row["lossless"] else "no",
                f"{row['megabytes_per_second']:.1f}" + " *" * is_plain(tokenizer),
            )
        )
    print_table(rows)
    if any(map(is_plain, tokenizers.values())):
        print("* plain Python; compiled kernels encode longer texts as soon as they are ready")


def is_plain(tokenizer):
    """Whether plain Python encodes what compiled kernels would, if they were there or the text were longer."""
    return getattr(tokenizer, "rung", None) == "python"


def measured(tokenizer, texts):
    """Figures of one tokenizer on texts, as a dict; speed of one thread, with what it remembers of a first pass."""
    num_bytes = sum(len(text.encode("utf-8")) for text in texts)
    encoded = [tokenizer.encode_to_array(text) for text in texts]
    start = time.perf_counter()
    for text in texts:
        tokenizer.encode_to_array(text)
    seconds = time.perf_counter() - start
    tokens = sum(map(len, encoded))
    return {
        "tokens": tokens,
        "bytes_per_token": num_bytes / max(tokens, 1),
        "used": len(np.unique(np.concatenate(encoded))) / tokenizer.vocab_size,
        "lossless": all(tokenizer.decode(ids) == text for ids, text in zip(encoded, texts, strict=True)),
        "megabytes_per_second": num_bytes / seconds / 1e6,
    }


def first_bytes(texts, at_most):
    """The texts whose bytes fit `at_most`, and of the one that crosses the limit its beginning."""
    chosen = []
    for text in texts:
        content = text.encode("utf-8")
        chosen.append(text if len(content) <= at_most else content[:at_most].decode("utf-8", "ignore"))
        at_most -= len(content)
        if at_most <= 0:
            break
    return chosen
