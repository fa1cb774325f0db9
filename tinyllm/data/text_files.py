"""Text from files, folders and glob patterns: UTF-8 or a clear refusal, in an order that no disk decides."""

import glob
import os
from pathlib import Path

from tinyllm.errors import UserError

SEPARATOR = "<|endoftext|>"
"""What stands between documents in one file, as in GPT-2's and TinyStories' data."""


def find_files(pattern):
    """The files that `pattern` names: itself, those of a folder, or a glob's matches; None if it is nothing of that.

    `~` is the home folder. Hidden files and folders below a folder are passed over. Raises UserError for a folder
    without files and for a glob pattern without a match.
    """
    path = Path(pattern).expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # a folder on the way may not be entered
        refuse(error)
    if is_file:
        return [path]
    if is_folder:
        files = list(walk(path))
        if not files:
            raise UserError(f"the folder {pattern} holds no files (hidden ones do not count); put text files in it")
        return files
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [file for match in matches for file in (walk(match) if match.is_dir() else [match])]
        if not files:
            raise UserError(
                f"no file matches the pattern {pattern}; check the folder and quote the pattern in the shell"
            )
        return list(dict.fromkeys(files))  # `**` names a file once for itself and once for its folder
    return None


def walk(folder):
    """The files below `folder` in sorted order, without hidden files and folders; links to folders are not followed."""
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def refuse(error):
    """Say that a file or folder cannot be read."""
    reason = error.strerror or error
    raise UserError(f"{error.filename} cannot be read ({reason}); check its permissions or choose another") from error


def read_all(paths):
    """(documents of all text files, number of binary files skipped); a single file that is binary is an error."""
    documents, skipped = [], 0
    for path in paths:
        data = read_bytes(path)
        if b"\0" not in data:
            documents += documents_of(decode(data, path))
        elif len(paths) == 1:
            refuse_binary(path)
        else:
            skipped += 1
    return documents, skipped


def refuse_binary(path):
    """Say that the only file there is holds no text."""
    raise UserError(f"{path} is binary or UTF-16 (it holds zero bytes); expected text in UTF-8")


def read_documents(path):
    """The documents of one text file."""
    return read_all([Path(path)])[0]


def read_bytes(path):
    """The bytes of a file, or UserError."""
    try:
        return path.read_bytes()
    except OSError as error:
        refuse(error)


def decode(data, path):
    """Bytes as UTF-8 text, without a byte order mark; newlines stay as they are."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        refuse_bytes(path, data[error.start], error.start)


def refuse_bytes(path, byte, offset):
    """Say that a file is not UTF-8."""
    raise UserError(
        f"{path} is not UTF-8: byte 0x{byte:02x} at offset {offset:,}; "
        "convert it, for example with: iconv -f latin1 -t utf-8 OLD > NEW"
    ) from None


def documents_of(text):
    """A file's text as it stands, or the stripped parts between the separators in it."""
    if SEPARATOR not in text:
        return [text]
    return [part.strip() for part in text.split(SEPARATOR)]
