"""Text to token ids and back: bytes, characters, byte-level BPE and WordPiece with trainers, SentencePiece's BPE."""

from tinyllm.tokenizers.bpe import BPETokenizer
from tinyllm.tokenizers.byte import ByteTokenizer
from tinyllm.tokenizers.character import CharacterTokenizer
from tinyllm.tokenizers.loading import load_tokenizer
from tinyllm.tokenizers.sentencepiece import SentencePieceBPETokenizer
from tinyllm.tokenizers.word_counting import count_words
from tinyllm.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "SentencePieceBPETokenizer",
    "WordPieceTokenizer",
    "count_words",
    "load_tokenizer",
]
