"""Which tokenizer a folder or file holds."""

from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import read_json
from tinyllm.tokenizers.bpe import BPETokenizer
from tinyllm.tokenizers.byte import ByteTokenizer
from tinyllm.tokenizers.character import CharacterTokenizer
from tinyllm.tokenizers.huggingface import signature
from tinyllm.tokenizers.published import RANK_FILES
from tinyllm.tokenizers.sentencepiece import SentencePieceBPETokenizer
from tinyllm.tokenizers.tokenizer import FILE_NAME
from tinyllm.tokenizers.wordpiece import WordPieceTokenizer

KINDS = {
    tokenizer.kind: tokenizer
    for tokenizer in (BPETokenizer, ByteTokenizer, CharacterTokenizer, SentencePieceBPETokenizer, WordPieceTokenizer)
}


def load_tokenizer(path):
    """The tokenizer that lies in a folder, or in one file: ours, or another project's.

    A folder may hold tokenizer.json, or GPT-2's two files (encoder.json and vocab.bpe, or vocab.json and merges.txt),
    or BERT's vocab.txt (read as uncased; `WordPieceTokenizer.from_vocab_txt` has the choice). A file may be any of the
    single ones, a rank file of tiktoken that has its published name (r50k_base.tiktoken), or llama2.c's tokenizer.bin.
    Errors: UserError for a missing or damaged file, or one of a kind that is not here.
    """
    path = Path(path)
    if path.is_dir():
        return in_folder(path)
    if path.suffix == ".tiktoken":
        return BPETokenizer.from_tiktoken(path, *published(path))
    if path.suffix == ".bin":
        return SentencePieceBPETokenizer.from_llama2c(path)
    if path.suffix == ".txt":
        return WordPieceTokenizer.from_vocab_txt(path)
    if path.suffix == ".json":
        return in_json(path)
    if path.exists():
        raise UserError(f"{path} is no file of a tokenizer; known are .json, .tiktoken, .bin (llama2.c), .txt (BERT)")
    return in_json(path / FILE_NAME)


def in_folder(folder):
    """The tokenizer in the first of the files that a folder may hold."""
    if not (folder / FILE_NAME).exists():
        for vocabulary, merges in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
            if (folder / vocabulary).exists() and (folder / merges).exists():
                return BPETokenizer.from_gpt2(folder / vocabulary, folder / merges)
        if (folder / "vocab.txt").exists():
            return WordPieceTokenizer.from_vocab_txt(folder / "vocab.txt")
    return in_json(folder / FILE_NAME)


def in_json(path):
    """The tokenizer in a tokenizer.json."""
    kind, _ = signature(read_json(path), path)
    if kind not in KINDS:
        raise UserError(f"{path} holds a tokenizer of the kind {kind!r}, known are {', '.join(KINDS)}; update tinyllm")
    return KINDS[kind].from_file(path)


def published(path):
    """(pattern, special tokens) of a rank file, which its name tells."""
    if path.stem not in RANK_FILES:
        raise UserError(
            f"{path}: a rank file says neither how text is cut nor which special tokens there are, and these are known "
            f"of {', '.join(RANK_FILES)} only; use BPETokenizer.from_tiktoken(file, pattern, special_tokens)"
        )
    return RANK_FILES[path.stem]
