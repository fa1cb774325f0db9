"""What commands print on: streams that take any character, commands as one types them, tables."""

import codecs
import os
import shlex
import shutil
import subprocess
import sys

# What rich, tyro and we draw with, for consoles that have ASCII only (or one of Windows' old code pages).
ASCII = str.maketrans("╭╮╰╯┌┐└┘├┤┬┴┼─━│┃…–—×·→µ≈²³", "++++++++++++---||.--x.>u~23")


INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def prepare_streams():
    """Make standard output and error print something for every character, whatever the console's encoding."""
    codecs.register_error("tinyllm-plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="tinyllm-plain")


def plain(error):
    """Codec error handler: an ASCII character that looks alike, else a question mark."""
    text = error.object[error.start : error.end].translate(ASCII)
    return "".join(character if character.isascii() else "?" for character in text), error.end


def fail(message, code=2):
    """Say in one line on standard error what is wrong; returns the exit code."""
    print("tinyllm:", " ".join(str(message).split()), file=sys.stderr)
    return code


def command_line(*words):
    """`tinyllm WORDS` as one can type it in this shell: quoted, and with its path where it is not on the PATH."""
    beside = shutil.which("tinyllm", path=os.path.dirname(sys.executable))
    program = "tinyllm" if shutil.which("tinyllm") or not beside else beside
    if program.startswith(os.getcwd() + os.sep):
        program = os.path.relpath(program)
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return join([program, *map(str, words)])


def print_table(rows):
    """Print rows of texts in aligned columns, the last one wrapped to the console's width."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for index in range(len(rows[0])):
        table.add_column(no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False, soft_wrap=False).print(table)
