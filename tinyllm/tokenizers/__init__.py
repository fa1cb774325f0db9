"""Text to token ids and back: bytes, characters, and byte-level BPE with its trainer."""

from tinyllm.tokenizers.bpe import BPETokenizer
from tinyllm.tokenizers.byte import ByteTokenizer
from tinyllm.tokenizers.character import CharacterTokenizer
from tinyllm.tokenizers.loading import load_tokenizer

__all__ = ["BPETokenizer", "ByteTokenizer", "CharacterTokenizer", "load_tokenizer"]
