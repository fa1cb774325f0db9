"""Which tokenizer a folder holds."""

from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import read_json
from tinyllm.tokenizers.bpe import BPETokenizer
from tinyllm.tokenizers.byte import ByteTokenizer
from tinyllm.tokenizers.character import CharacterTokenizer
from tinyllm.tokenizers.huggingface import signature
from tinyllm.tokenizers.sentencepiece import SentencePieceBPETokenizer
from tinyllm.tokenizers.tokenizer import FILE_NAME
from tinyllm.tokenizers.wordpiece import WordPieceTokenizer

KINDS = {
    tokenizer.kind: tokenizer
    for tokenizer in (BPETokenizer, ByteTokenizer, CharacterTokenizer, SentencePieceBPETokenizer, WordPieceTokenizer)
}


def load_tokenizer(folder):
    """The tokenizer whose tokenizer.json lies in `folder`: one of ours, or another project's BPE or WordPiece.

    Errors: UserError for a missing or damaged file, or one of a kind that is not here.
    """
    path = Path(folder) / FILE_NAME
    kind, _ = signature(read_json(path), path)
    if kind not in KINDS:
        raise UserError(f"{path} holds a tokenizer of the kind {kind!r}, known are {', '.join(KINDS)}; update tinyllm")
    return KINDS[kind].load(folder)
