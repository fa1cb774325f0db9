"""Tokenizers that others published, by name: found beside the project, in the cache folder, or fetched when asked for.

Their texts are OpenAI's rank files, as the `tiktoken` package names them.
"""

import http.client
import os
from dataclasses import dataclass
from pathlib import Path

from tinyllm.data.named_texts import cache_folder, download
from tinyllm.errors import UserError
from tinyllm.files import sha256_of
from tinyllm.tokenizers import ByteTokenizer, load_tokenizer

SOURCE = "https://openaipublic.blob.core.windows.net/encodings/"


@dataclass(frozen=True)
class PublishedVocabulary:
    """One rank file. `sha256`: of its content."""

    file_name: str
    sha256: str

    @property
    def url(self):
        return SOURCE + self.file_name


VOCABULARIES = {
    "gpt2": PublishedVocabulary(
        "r50k_base.tiktoken", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
    ),
    "gpt4": PublishedVocabulary(
        "cl100k_base.tiktoken", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
    ),
    "gpt4o": PublishedVocabulary(
        "o200k_base.tiktoken", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    ),
}


def find_vocabulary(name):
    """The path of a published vocabulary on this machine, in TINYLLM_REFERENCE or the cache folder; None if absent."""
    file_name = VOCABULARIES[name].file_name
    folders = [cache_folder()]
    if reference := os.environ.get("TINYLLM_REFERENCE"):
        folders.insert(0, Path(reference).expanduser() / "tokenizers" / "tiktoken")
    return next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)


def named_tokenizer(name, progress=None):
    """The published tokenizer of that name (of VOCABULARIES), downloaded if it is not on this machine.

    progress(bytes done, bytes in all or None) is called while downloading. Raises UserError for a file that is not the
    published one, and with the steps to do by hand when it cannot be had.
    """
    published = VOCABULARIES[name]
    path = find_vocabulary(name)
    if path is None:
        path = cache_folder() / published.file_name
        try:
            download(published.url, path, published.sha256, progress)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"the vocabulary of {name} could not be downloaded ({reason}); download {published.url} and save it "
                f"as {path}"
            ) from error
    elif sha256_of(path.read_bytes()) != published.sha256:
        raise UserError(f"{path} is not the published vocabulary (its sha256 differs); delete it, or fetch it again")
    return load_tokenizer(path)


def find_tokenizer(name_or_path, progress=None):
    """The tokenizer meant by a word of the command line: a published name, "bytes", or a folder or file."""
    if name_or_path == "bytes":
        return ByteTokenizer()
    if name_or_path in VOCABULARIES:
        return named_tokenizer(name_or_path, progress)
    return load_tokenizer(name_or_path)
