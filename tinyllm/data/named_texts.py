"""Corpora that others published: found beside the project, in the cache folder, or fetched when asked for by name."""

import hashlib
import http.client
import os
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import atomic_write

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class PublishedText:
    """One published text file. `sha256` is None where it is not known; then we do not download it."""

    file_name: str
    url: str
    sha256: str | None = None
    note: str = ""


SHAKESPEARE = PublishedText(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    note="works of Shakespeare, karpathy/char-rnn",
)
# In order of preference: the whole validation file, if somebody put it there, then the sample.
TINYSTORIES = PublishedText(
    "TinyStoriesV2-GPT4-valid.txt",
    "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-valid.txt",
    note="TinyStories' validation file, CDLA-Sharing-1.0",
)
TINYSTORIES_SAMPLE = PublishedText(
    "tinystories_2MB.txt", TINYSTORIES.url, note="a 2 MB sample of TinyStories, CDLA-Sharing-1.0"
)
TEXTS = {"shakespeare": (SHAKESPEARE,), "tinystories": (TINYSTORIES, TINYSTORIES_SAMPLE)}


def cache_folder():
    """Where downloads are kept: TINYLLM_CACHE, or the platform's folder for what a user can delete at any time."""
    if chosen := os.environ.get("TINYLLM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "tinyllm"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/tinyllm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyllm"


def find_text(name, progress=None):
    """(path, note) of a published text: in TINYLLM_REFERENCE's text folder, in the cache folder, or downloaded.

    progress(bytes done, bytes in all or None) is called while downloading. Raises UserError with the steps to do by
    hand when it cannot be had.
    """
    folders = [cache_folder()]
    if reference := os.environ.get("TINYLLM_REFERENCE"):
        folders.insert(0, Path(reference).expanduser() / "text")
    for folder in folders:
        for text in TEXTS[name]:
            if (folder / text.file_name).is_file():
                return folder / text.file_name, text.note
    text, path = TEXTS[name][0], cache_folder() / TEXTS[name][0].file_name
    by_hand = f"download {text.url} and save it as {path}"
    if text.sha256 is None:
        raise UserError(f"{name} is not on this machine, and it is not downloaded by itself; {by_hand}")
    try:
        download(text.url, path, text.sha256, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{name} could not be downloaded ({reason}); {by_hand}") from error
    return path, text.note


def download(url, path, sha256, progress=None):
    """Fetch `url` into `path`, which gets its name only if the content's SHA-256 is `sha256` (else UserError)."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, atomic_write(path) as file:
        size = response.headers.get("Content-Length")
        done = 0
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, int(size) if size else None)
        if digest.hexdigest() != sha256:
            raise UserError(
                f"{url} sent {done:,} bytes with sha256 {digest.hexdigest()[:12]}…, expected {sha256[:12]}…; "
                f"the download was cut short or changed, nothing was kept; try again or save the file as {path}"
            )
