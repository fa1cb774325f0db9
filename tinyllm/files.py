"""Atomic writes and checksums: a killed process never leaves half a file under a real name."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

from tinyllm.errors import UserError


class DiskFull(UserError):
    """There was no room to write a file; what stood under its name before is untouched. Its cause is the OSError."""


CANNOT_WRITE = (OSError, DiskFull)
"""What writing a file raises where the disk is full, read-only or gone."""


def reason(error):
    """One of these in a few words: "No space left on device"."""
    return getattr(error.__cause__, "strerror", None) or getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def atomic_write(path, mode="wb"):
    """Open a temporary file beside `path`; on success flush it to disk and rename it over `path`.

    mode: "wb" for bytes or "w" for text (UTF-8, newlines as written). On any error the temporary file is removed
    and what stood under `path` before is untouched. A full disk raises DiskFull, a UserError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    options = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk is full: {path} was not written (what stood there before is untouched); "
                "free some space and run the command again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync_file(path):
    """Make what was written to a file survive a power cut."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder):
    """Make a rename in `folder` survive a power cut, where the system can (Windows and some network disks cannot)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # the file itself is safe; only its new name may be forgotten
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_folder(folder):
    """Delete a folder and what is in it; its name goes first, so that a killed process leaves no half of it there."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def write_json(path, value):
    """Write `value` as indented UTF-8 JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path):
    """Read a JSON file; a missing or malformed one, or one with a name twice, raises UserError naming the file."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=object_without_doubles)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it was damaged or is another kind of file") from None


def object_without_doubles(pairs):
    """The dict of a JSON object's pairs; ValueError where a name occurs twice, of which a dict would keep the last."""
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r} occurs twice in one object")
    return result


def read_text(path):
    """Read a UTF-8 text file; a missing one, or one that is no text, raises UserError naming the file."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); is it another file, or damaged?") from None


def sha256_of(data):
    """Hexadecimal SHA-256 of bytes, text (as UTF-8) or, for a Path, of the file's content."""
    if isinstance(data, Path):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(data, str):
        data = data.encode("utf-8")
    return hashlib.sha256(data).hexdigest()
