"""The simplest tokenizer that can write everything: one token per byte of UTF-8."""

from tinyllm.tokenizers.huggingface import bpe_json, special_tokens_of
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, number_special_tokens
from tinyllm.tokenizers.tokenizer import Tokenizer


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are the bytes themselves, special tokens follow. Nothing to train, nothing unknown.

    Source: Xue et al. 2022, "ByT5: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models".
    """

    kind = "byte"

    def __init__(self, special_tokens=(END_OF_TEXT,)):
        """special_tokens: names, numbered from 256 on in their order."""
        self._bytes = {byte: bytes([byte]) for byte in range(256)}
        super().__init__(self._bytes, number_special_tokens(special_tokens, 256))

    def _encode_ordinary(self, text):
        return list(text.encode("utf-8"))

    def _to_json(self):
        return bpe_json(self._bytes, self.special_tokens, merges=[], pattern=None)

    @classmethod
    def _from_json(cls, content):
        return cls(())._with_named(special_tokens_of(content), {})
