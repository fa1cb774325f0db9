"""A corpus that is read and never held: files of any size, one part of a document after the other."""

import codecs
import hashlib
from collections import deque
from itertools import chain

from tinyllm.data import text_files
from tinyllm.data.corpora import description, readable, refuse_empty, skipped_note, unknown
from tinyllm.data.preparation import count_bytes
from tinyllm.data.text_files import SEPARATOR
from tinyllm.errors import UserError

BLOCK = 1 << 20  # bytes that are read at a time
PART = 1 << 22  # characters; a longer document is cut, where it can be


class StreamedCorpus:
    """The documents that `load_corpus` would load from a file, folder or glob pattern, read as they are needed.

    A document comes whole, or, if it is long, in parts that end where last_cut(text, start, stop) says: the last good
    place between start and stop, or None. Without `last_cut` all come whole. Iterating, any number of times, yields
    texts; so does `read`.

    Errors: UserError for what is missing or misspelt; while reading, for what is unreadable, empty, binary or not
    UTF-8, with the file's name and the place of the byte.
    """

    def __init__(self, name_or_path, last_cut=None):
        self.name = readable(str(name_or_path))
        self.paths = text_files.find_files(str(name_or_path))
        if self.paths is None:
            raise UserError(unknown(str(name_or_path)))
        self.last_cut = last_cut
        self._start()

    @property
    def file_bytes(self):
        """Bytes of the files, those that will be skipped included."""
        return sum(size_of(path) for path in self.paths)

    @property
    def documents(self):
        """The texts, to iterate over."""
        return self

    def __iter__(self):
        return self.read()

    def read(self, progress=None):
        """The texts; progress(bytes read, bytes in all) is called now and then."""
        self._start()
        report = count_bytes(self.file_bytes, progress)
        for path in self.paths:
            is_binary, is_separated = look_through(path)
            if is_binary and len(self.paths) == 1:
                text_files.refuse_binary(path)
            if is_binary:
                self._skipped += 1
                report(size_of(path))
                continue
            for part, begins in parts_of_documents(decoded(path, report), is_separated, self.last_cut):
                self._add(part, begins)
                yield part
        if not self.num_documents:
            refuse_empty(self.name, skipped_note(self._skipped))
        self._complete = True

    def _start(self):
        self.num_documents, self.num_bytes, self._skipped, self._digest = 0, 0, 0, hashlib.sha256()
        self._complete = False

    def _add(self, part, begins):
        data = part.encode("utf-8")
        if begins and self.num_documents:
            self._digest.update(SEPARATOR.encode())
        self._digest.update(data)
        self.num_documents += begins
        self.num_bytes += len(data)

    def describe(self):
        """One line, as `Corpus.describe`; reads everything, unless that was just done."""
        if not self._complete:
            deque(self, maxlen=0)
        note = skipped_note(self._skipped)
        return description(self.name, self.num_documents, self.num_bytes, self._digest.hexdigest(), note)


def parts_of_documents(blocks, is_separated, last_cut):
    """Yield (text, whether it begins a document), for a file's text that comes in blocks.

    is_separated: whether SEPARATOR stands in the file; then documents are stripped, else there is one, as it stands.
    """
    held, size, enough, begins = [], 0, PART, True
    for block in chain(blocks, [""]):
        held.append(block)
        size += len(block)
        if block and size < enough:
            continue
        text = "".join(held)
        if is_separated:
            *documents, text = text.split(SEPARATOR)
            for document in documents:
                yield from last_part(document.rstrip(), begins, is_separated)
                begins = True
            text = text.lstrip() if begins else text
        if not block:
            yield from last_part(text.rstrip() if is_separated else text, begins, is_separated)
        # A separator that has only begun is longer than what is left uncut.
        elif last_cut and (cut := last_cut(text, 0, len(text) - len(SEPARATOR))):
            yield text[:cut], begins
            text, begins = text[cut:], False
        held, size = [text], len(text)
        enough = max(PART, 2 * size)  # a text without a good place is looked through a few times only


def last_part(text, begins, is_separated):
    """The end of a document, or the whole of it; nothing if it is blank."""
    if begins:
        text = text.lstrip() if is_separated else text
        if text and not text.isspace():
            yield text, True
    elif text:
        yield text, False


def decoded(path, report):
    """The text of a UTF-8 file in blocks, without a byte order mark; report(number of bytes) for each."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    for data in chain(read_blocks(path), [b""]):
        begin = done - len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            text_files.refuse_bytes(path, error.object[error.start], begin + error.start)
        if text:
            yield text.removeprefix("\ufeff") if done == 0 else text
        done += len(data)
        report(len(data))


def look_through(path):
    """(whether a file is binary, that is, holds zero bytes; whether SEPARATOR stands in it)."""
    separator, tail, is_separated = SEPARATOR.encode(), b"", False
    for block in read_blocks(path):
        data = tail + block
        if b"\0" in data:
            return True, False
        is_separated = is_separated or separator in data
        tail = data[1 - len(separator) :]  # one may have begun
    return False, is_separated


def read_blocks(path):
    """The bytes of a file in blocks, or UserError."""
    try:
        with open(path, "rb") as file:
            while data := file.read(BLOCK):
                yield data
    except OSError as error:
        text_files.refuse(error)


def size_of(path):
    """The bytes of a file, or UserError."""
    try:
        return path.stat().st_size
    except OSError as error:
        text_files.refuse(error)
