"""Learn a tokenizer from text, and turn text into tokens and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from tinyllm.commands.tokenizer_views import first_bytes, print_comparison, print_tokens, text_from
from tinyllm.errors import UserError

LOADED_BYTES = 200_000_000  # of files; larger ones are read part by part, as often as needed
A_BEGINNING = 4_000_000  # bytes: what the WordPiece beside a tokenizer learns from


@dataclass
class TrainOptions:
    data: str
    """A file, a folder, a glob pattern, or the name of a corpus (python-reference, shakespeare, ...)."""

    out: Path
    """The folder to write; it must not hold a tokenizer yet."""

    vocab_size: int = 8192
    """Number of tokens, the special ones and the 256 bytes or all letters included (bpe and wordpiece only)."""

    kind: Literal["bpe", "wordpiece", "character", "bytes"] = "bpe"
    """bpe: byte pairs, as GPT has; wordpiece: parts of words, as BERT has; character: one token for each character of
    the text; bytes: the 256 bytes."""

    pattern: str = "gpt4"
    """How text is cut into pieces before merging: gpt2, gpt4, gpt4o, or a regular expression (bpe only)."""

    cased: bool = False
    """Keep capitals and accents (wordpiece only)."""

    held_out: float = 0.1
    """Share of the text that is kept back to measure on, the same that pretrain keeps back; 0: learn from all of it."""

    compare: tuple[str, ...] = ()
    """Folders or files of other tokenizers, or gpt2, gpt4, gpt4o, to measure on that text too."""


@dataclass
class EncodeOptions:
    text: Positional[str]
    """The text; - reads it from standard input."""

    tokenizer: str
    """A folder that `tinyllm tokenizer train` wrote, another project's folder or file, or gpt2, gpt4, gpt4o, bytes."""

    show: bool = False
    """Print each token's number beside its piece of the text."""


@dataclass
class DecodeOptions:
    ids: Positional[tuple[int, ...]]
    """Token numbers."""

    tokenizer: str
    """A folder that `tinyllm tokenizer train` wrote, another project's folder or file, or gpt2, gpt4, gpt4o, bytes."""


@dataclass
class InspectOptions:
    text: Positional[str]
    """The text; - reads it from standard input."""

    tokenizer: str
    """A folder or file with a tokenizer, or gpt2, gpt4, gpt4o, bytes."""


@dataclass
class CompareOptions:
    tokenizers: Positional[tuple[str, ...]]
    """Folders or files with tokenizers, or the names gpt2, gpt4, gpt4o, bytes."""

    data: str
    """The text to compare them on: a file, a folder, a glob pattern, or the name of a corpus."""


def train(options: TrainOptions):
    """Learn a tokenizer from text and write it to a folder.

    Example:
        tinyllm tokenizer train --data book.txt --out runs/tokenizer --vocab-size 2048
    """
    file = options.out / "tokenizer.json"
    if file.exists():
        raise UserError(f"{file} exists and is not overwritten; choose another --out, or delete it first")
    others = {name: opened(name) for name in options.compare}
    text = open_text(options)
    tokenizer = learn(text, options)
    print(text.describe())
    tokenizer.save(options.out)
    if tokenizer.loses:
        print(f"A {tokenizer.kind} tokenizer of these settings does not keep {tokenizer.loses}.")
    print(f"{file}: {tokenizer.vocab_size:,} tokens")
    measured = text.held_out or first_bytes(text, A_BEGINNING)
    print("On the text that was kept back:" if text.held_out else "On the text that it learned from:")
    print_comparison({str(options.out): tokenizer} | others | yardsticks(tokenizer, text, options), measured)


def open_text(options):
    """What the options name, divided: a corpus, or files, which are read as they are needed if they are large."""
    from tinyllm.data import NAMES, Divided, StreamedCorpus, load_corpus
    from tinyllm.tokenizers.safe_cuts import cutter
    from tinyllm.training.progress import track

    if not 0 <= options.held_out < 1:
        raise UserError(f"--held-out is a share of the text, at least 0 and below 1, not {options.held_out}")
    if options.data not in NAMES:
        streamed = StreamedCorpus(options.data, cutter(options.pattern))
        if not options.held_out or streamed.file_bytes > LOADED_BYTES:
            return Divided(streamed, options.held_out)
    with track(None, "downloading", "bytes") as progress:
        return Divided(load_corpus(options.data, progress=progress), options.held_out)


def learn(text, options):
    """The tokenizer that the options ask for, learned from a divided text."""
    from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, WordPieceTokenizer, count_words
    from tinyllm.tokenizers.bpe import merges_wanted
    from tinyllm.training.progress import track

    if options.kind == "bytes":
        return ByteTokenizer()
    if options.kind == "character":  # its alphabet must cover the whole text
        return CharacterTokenizer.train(text.corpus.documents)
    if options.kind == "wordpiece":
        with track(None, "training the tokenizer", "pieces") as progress:
            return WordPieceTokenizer.train(text, options.vocab_size, lowercase=not options.cased, progress=progress)
    merges_wanted(options.vocab_size)  # a size that cannot be is refused before the text is read
    with track(None, "reading the text", "bytes") as progress:
        words = count_words(text.read(progress), options.pattern)
    if words.dropped:
        print(words.note())
    with track(None, "training the tokenizer", "merges") as progress:
        return BPETokenizer.train_on_words(words, options.vocab_size, options.pattern, progress=progress)


def yardsticks(tokenizer, text, options):
    """Dict name -> tokenizer: bytes, and WordPiece of the same size, learned from the beginning of the same text."""
    from tinyllm.tokenizers import ByteTokenizer, WordPieceTokenizer

    found = {} if options.kind == "bytes" else {"bytes": ByteTokenizer()}
    if options.kind == "bpe":
        texts = first_bytes(text, A_BEGINNING)
        try:
            found["wordpiece"] = WordPieceTokenizer.train(texts, tokenizer.vocab_size, lowercase=False)
        except UserError as error:  # so many tokens are not in it
            print(f"No wordpiece beside it: {error}")
    return found


def encode(options: EncodeOptions):
    """Turn text into token numbers.

    Example:
        tinyllm tokenizer encode --tokenizer runs/tokenizer "The old sailor"
    """
    tokenizer = opened(options.tokenizer)
    ids = tokenizer.encode(text_from(options.text))
    if not options.show:
        print(*ids)
        return
    for token in ids:
        print(f"{token:>7}  {piece(tokenizer.decode_bytes([token]))}")


def piece(content):
    """Bytes as quoted text, or as b'...' where they are only a part of a character."""
    try:
        return repr(content.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(content)


def decode(options: DecodeOptions):
    """Turn token numbers into text.

    Example:
        tinyllm tokenizer decode --tokenizer runs/tokenizer 464 1468 45599
    """
    print(opened(options.tokenizer).decode(options.ids))


def inspect(options: InspectOptions):
    """Show the tokens of a text in alternating colours, with their numbers.

    Example:
        tinyllm tokenizer inspect --tokenizer runs/tokenizer "The old sailor's tale"
    """
    tokenizer = opened(options.tokenizer)
    text = text_from(options.text)
    ids = tokenizer.encode(text)
    print_tokens(tokenizer, ids)
    num_bytes = len(text.encode("utf-8"))
    print(f"{len(ids):,} tokens, {num_bytes:,} bytes, {num_bytes / max(len(ids), 1):.2f} bytes a token")


def compare(options: CompareOptions):
    """Compare tokenizers on a text: bytes a token, how much of the vocabulary is used, speed.

    GPT-2's, GPT-4's and GPT-4o's are put beside them where their files are on this machine; name them (gpt2, gpt4,
    gpt4o) to have them downloaded.

    Example:
        tinyllm tokenizer compare runs/tokenizer bytes gpt2 --data book.txt
    """
    from tinyllm.data import load_corpus
    from tinyllm.data.named_vocabularies import VOCABULARIES, find_vocabulary

    published = [name for name in VOCABULARIES if name not in options.tokenizers and find_vocabulary(name)]
    tokenizers = {name: opened(name) for name in (*options.tokenizers, *published)}
    if not tokenizers:
        raise UserError(
            "there is nothing to compare; name folders or files with tokenizers, or gpt2, gpt4, gpt4o, bytes"
        )
    corpus = load_corpus(options.data)
    print(corpus.describe())
    print_comparison(tokenizers, corpus.documents)


def opened(name):
    """The tokenizer of a name (gpt2, gpt4, gpt4o, bytes), or in a folder or file."""
    from tinyllm.data.named_vocabularies import find_tokenizer
    from tinyllm.training.progress import track

    with track(None, "downloading", "bytes") as progress:
        return find_tokenizer(name, progress)


SUBCOMMANDS = {"train": train, "encode": encode, "decode": decode, "inspect": inspect, "compare": compare}
