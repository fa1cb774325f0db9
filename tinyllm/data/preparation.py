"""From a corpus to token files: split, encode, write; or take what an earlier run wrote, if it is the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm.data.token_files import TokenFile, write_tokens
from tinyllm.errors import UserError
from tinyllm.files import read_json, write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PreparedData:
    """Training and validation tokens of a corpus. `reused` says that the files were there already."""

    training: TokenFile
    validation: TokenFile
    reused: bool


def prepare(corpus, tokenizer, folder, *, held_out=0.1, seed=0, progress=None):
    """Split `corpus`, encode both parts and write `folder`/training.tokens, validation.tokens, prepared.json.

    In a corpus of several documents each is followed by the tokenizer's end_of_text, if it has one. Files made from the
    same corpus, tokenizer and split are taken as they are; others are written anew. progress(bytes encoded, bytes in
    all) is called after each document. Returns PreparedData.
    """
    folder = Path(folder)
    recipe = {
        "format_version": FORMAT_VERSION,
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "vocabulary_hash": tokenizer.vocabulary_hash,
        "held_out": held_out,
        "seed": seed,
    }
    if earlier := reusable(folder, recipe):
        return earlier
    report = count_bytes(corpus.num_bytes, progress)
    end = end_of_document(corpus, tokenizer)
    files = {}
    for part, documents in zip(("training", "validation"), corpus.split(held_out, seed), strict=True):
        files[part] = write_tokens(
            folder / f"{part}.tokens",
            encoded(documents, tokenizer, end, report),
            vocabulary_hash=tokenizer.vocabulary_hash,
            vocab_size=tokenizer.vocab_size,
            num_bytes=sum(len(document.encode("utf-8")) for document in documents),
        )
    # Last, and with the hashes of both files: a run killed in between leaves a recipe that does not fit, or none.
    write_json(folder / "prepared.json", recipe | {f"{part}_sha256": file.sha256 for part, file in files.items()})
    return PreparedData(**files, reused=False)


def encoded(documents, tokenizer, end, report):
    """Yield the ids of each document, with `end` (or None) after it."""
    for document in documents:
        yield np.asarray(tokenizer.encode_to_array(document))
        if end is not None:
            yield np.array([end])
        report(len(document.encode("utf-8")))


def num_bytes_of_targets(corpus, tokenizer, count, *, held_out=0.1, seed=0):
    """UTF-8 bytes of text that the first `count` held-out targets stand for, tokens 1 to count of validation.tokens.

    They are counted in the text itself, which a tokenizer that loses something does not give back.
    """
    lengths, end = [], end_of_document(corpus, tokenizer)
    for document in corpus.split(held_out, seed)[1]:
        lengths += tokenizer.num_bytes_of_tokens(document)
        lengths += [0] if end is not None else []
        if len(lengths) > count:
            break
    return sum(lengths[1 : count + 1])


def end_of_document(corpus, tokenizer):
    """The id that follows each document; None where there is one document, or the tokenizer has no such id."""
    return tokenizer.end_of_text if corpus.num_documents > 1 else None


def count_bytes(total, progress):
    """A function that adds up bytes and passes them on to `progress`."""
    done = 0

    def report(num_bytes):
        nonlocal done
        done += num_bytes
        if progress:
            progress(done, total)

    return report


def reusable(folder, recipe):
    """PreparedData of an earlier run with the same recipe and undamaged files, else None."""
    try:
        written = read_json(folder / "prepared.json")
        files = {part: TokenFile.open(folder / f"{part}.tokens") for part in ("training", "validation")}
    except UserError:
        return None
    same = written == recipe | {f"{part}_sha256": file.sha256 for part, file in files.items()}
    return PreparedData(**files, reused=True) if same else None
