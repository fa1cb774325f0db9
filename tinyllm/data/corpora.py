"""A corpus: documents of text, where they come from, and how they part into training and validation."""

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches

from tinyllm.data import named_texts, python_reference, text_files
from tinyllm.data.preparation import count_bytes
from tinyllm.errors import UserError

NAMES = ("python-reference", "python-stdlib", "shakespeare", "tinystories")


@dataclass(frozen=True)
class Corpus:
    """Documents of text in a fixed order. Make one with `load_corpus` or `Corpus.of`.

    sha256: of the documents joined by `<|endoftext|>`, as UTF-8; for a corpus of one document, of that text itself.
    num_bytes: UTF-8 bytes of all documents together, the unit of bits per byte.
    note: what a reader should know about it (a sample, files left out), or "".
    """

    name: str
    documents: list[str]
    sha256: str
    num_bytes: int
    note: str = ""

    @classmethod
    def of(cls, name, documents, note=""):
        """The corpus of `documents` (strings); those that are blank are left out. Raises UserError if none is left."""
        documents = [document for document in documents if not document.isspace() and document]
        if not documents:
            refuse_empty(name, note)
        digest, num_bytes = hashlib.sha256(), 0
        for index, document in enumerate(documents):
            data = document.encode("utf-8")
            num_bytes += len(data)
            digest.update(text_files.SEPARATOR.encode() + data if index else data)
        return cls(name, documents, digest.hexdigest(), num_bytes, note)

    @property
    def num_documents(self):
        """Number of documents."""
        return len(self.documents)

    def describe(self):
        """One line: name, documents, bytes, hash, note."""
        return description(self.name, self.num_documents, self.num_bytes, self.sha256, self.note)

    def read(self, progress=None):
        """The documents one after the other; progress(bytes read, bytes in all) after each."""
        report = count_bytes(self.num_bytes, progress)
        for document in self.documents:
            yield document
            report(len(document.encode("utf-8")))

    def split(self, held_out=0.1, seed=0):
        """(training documents, validation documents), each a list with at least one document, never overlapping.

        A corpus of one document is cut once, after the first int((1 - held_out) * characters) characters, as nanoGPT
        does. Of many documents a share of `held_out` is held out whole: those whose hash, seeded by `seed`, is lowest.
        So neither the order of the documents nor the machine matters, and equal documents land on one side.
        """
        if not 0 < held_out < 1:
            raise UserError(f"held_out is the share kept for validation, between 0 and 1; it was {held_out}")
        if self.num_documents == 1:
            return self._split_characters(held_out)
        ranked = sorted(set(self.documents), key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
        if len(ranked) == 1:
            raise UserError(f"all {self.num_documents} documents of {self.name} are equal: none can be held out")
        count = min(max(1, round(held_out * len(ranked))), len(ranked) - 1)
        validation = set(ranked[:count])
        return (
            [document for document in self.documents if document not in validation],
            [document for document in self.documents if document in validation],
        )

    def _split_characters(self, held_out):
        (text,) = self.documents
        if len(text) < 2:
            raise UserError(
                f"{self.name} holds {len(text)} character; a training and a validation part need at least 2"
            )
        cut = min(max(1, int((1 - held_out) * len(text))), len(text) - 1)
        return [text[:cut]], [text[cut:]]


def load_corpus(name_or_path, progress=None):
    """The corpus of a name (`tinyllm.data.NAMES`), or of a file, folder or glob pattern.

    A name goes before a file of the same name; write ./shakespeare for the file. A file is one document, or several
    where `<|endoftext|>` stands between them; a folder is walked in sorted order. Only `shakespeare` is ever
    downloaded, and only when asked for by name and not found; progress(bytes done, bytes in all or None) follows it.
    Raises UserError for what is missing, unreadable, empty, binary, not UTF-8, or misspelt.
    """
    name = str(name_or_path)
    if name == "python-reference":
        return Corpus.of(name, python_reference.python_reference(), "made from this Python's own manual")
    if name == "python-stdlib":
        return Corpus.of(name, python_reference.standard_library_sources(), "source files of this Python's library")
    if name in named_texts.TEXTS:
        path, note = named_texts.find_text(name, progress)
        return Corpus.of(name, text_files.read_documents(path), note)
    paths = text_files.find_files(name)
    if paths is None:
        raise UserError(unknown(name))
    documents, skipped = text_files.read_all(paths)
    return Corpus.of(readable(name), documents, skipped_note(skipped))


def readable(name):
    """A path as it can be printed: a file name may be no text at all."""
    return os.fsencode(name).decode("utf-8", "replace")


def skipped_note(number):
    """What to say of files that were left out, or ""."""
    if not number:
        return ""
    return "1 binary file skipped" if number == 1 else f"{number} binary files skipped"


def refuse_empty(name, note):
    """Say that there is no text in a corpus."""
    reason = f" ({note})" if note else ""
    raise UserError(f"the corpus {name} is empty: there is no text in it{reason}; choose a file with text")


def description(name, num_documents, num_bytes, sha256, note):
    """A corpus in one line."""
    documents = "1 document" if num_documents == 1 else f"{num_documents:,} documents"
    note = f" ({note})" if note else ""
    return f"{name}: {documents}, {num_bytes:,} bytes, sha256 {sha256}{note}"


def unknown(name):
    """The message for what is neither a corpus nor a path."""
    close = get_close_matches(name.lower(), NAMES, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{name} is neither a corpus ({', '.join(NAMES)}) nor a file, folder or glob pattern that exists{hint}"
