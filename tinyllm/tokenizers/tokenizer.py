"""What all tokenizers share: special tokens, decoding, the hash of the vocabulary, the folder they are saved in."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import read_json, sha256_of, write_json
from tinyllm.tokenizers.byte_symbols import spell
from tinyllm.tokenizers.huggingface import parsed, sign, signature
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, split_at
from tinyllm.tokenizers.streaming import StreamDecoder
from tinyllm.tokenizers.texts import check_text, check_texts

FILE_NAME = "tokenizer.json"


class Tokenizer:
    """Text to token ids and back. A subclass says how ordinary text is encoded and what its file looks like.

    tokens: dict id -> bytes of the ordinary tokens. special_tokens: dict name -> id of the special ones.
    """

    kind = None  # the name the file and the hash carry

    def __init__(self, tokens, special_tokens):
        self.special_tokens = dict(special_tokens)
        self._check(tokens)
        self._tokens = tokens | {token: name.encode("utf-8") for name, token in special_tokens.items()}
        self.vocab_size = max(self._tokens) + 1
        self.end_of_text = special_tokens.get(END_OF_TEXT)

    def _check(self, tokens):
        """UserError where an id is no id, or a name or id of a special token also means something else."""
        names = {self._spelling(content) for content in tokens.values()} if self.special_tokens else ()
        taken = set(tokens)
        for token in (*tokens, *self.special_tokens.values()):
            if type(token) is not int or not 0 <= token < 2**31:
                raise UserError(f"a token id must be a whole number from 0 to 2^31 - 1 (an int32); got {token!r}")
        for name, token in self.special_tokens.items():
            check_text(name)
            if not name or name in names:
                raise UserError(f"special token {name!r} is also ordinary text; choose a name such as '<|end|>'")
            if token in taken:
                raise UserError(f"special token {name!r} has the id {token} of another token; give it one of its own")
            taken.add(token)

    def _spelling(self, content):
        """How the file spells a token of these bytes."""
        return spell(content)

    def encode(self, text, *, allowed_special=(), disallowed_special=()):
        """Token ids of `text`, a list of int.

        What looks like a special token is ordinary text, so that a user's text can never command the model.
        allowed_special: names that become their one id instead, or "all". disallowed_special: names that may not
        occur in the text, or "all" (which means all that are not allowed).
        Errors: UserError (a ValueError) for a disallowed name in the text, an unknown name, a lone surrogate.
        """
        ids = []
        for place, part in enumerate(self._parts(text, allowed_special, disallowed_special)):
            ids += [self.special_tokens[part]] if place % 2 else self._encode_ordinary(part)
        return ids

    def _parts(self, text, allowed_special, disallowed_special):
        """The text cut at the special tokens that may arise: ordinary text at even places, their names at odd ones."""
        check_text(text)
        allowed = self._named(allowed_special, "allowed_special")
        disallowed = self._named(disallowed_special, "disallowed_special")
        if disallowed_special == "all":
            disallowed -= allowed
        for name in disallowed:
            if name in text:
                raise UserError(
                    f"the text contains the special token {name!r}, which is disallowed here; take it out of the text, "
                    f"or pass allowed_special={{{name!r}}} to get its id, or disallowed_special=() to read it as text"
                )
        return split_at(allowed, text)

    def _named(self, names, argument):
        """The set of special tokens meant by an argument of encode."""
        if isinstance(names, str) and names == "all":
            return set(self.special_tokens)
        if isinstance(names, str):
            raise UserError(
                f'{argument} must be "all" or a collection of names; got the text {names!r}: write [{names!r}]'
            )
        unknown = sorted(set(names) - set(self.special_tokens))
        if unknown:
            known = ", ".join(self.special_tokens) or "none"
            raise UserError(f"{argument} names {unknown[0]!r}, but this tokenizer's special tokens are: {known}")
        return set(names)

    def _encode_ordinary(self, text):
        """Token ids of text in which nothing is special."""
        raise NotImplementedError

    def _encode_ordinary_to_array(self, text):
        """The same as an int32 array."""
        return np.array(self._encode_ordinary(text), dtype=np.int32)

    def encode_to_array(self, text, *, allowed_special=(), disallowed_special=()):
        """`encode` as a one-dimensional int32 array, without a list on the way where a subclass knows how."""
        parts = self._parts(text, allowed_special, disallowed_special)
        arrays = [
            np.array([self.special_tokens[part]], np.int32) if place % 2 else self._encode_ordinary_to_array(part)
            for place, part in enumerate(parts)
        ]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def encode_batch(self, texts, *, allowed_special=(), disallowed_special=()):
        """`encode_to_array` of each text, a list of int32 arrays."""
        return [
            self.encode_to_array(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
            for text in check_texts(texts)
        ]

    def decode(self, ids, errors="replace"):
        """The text of token ids (a list or a one-dimensional array); special tokens give their names.

        errors: what to do with bytes that are not UTF-8, as in `bytes.decode`: "replace" (by U+FFFD), "ignore" or
        "strict" (UnicodeDecodeError). Errors: UserError for an id outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids):
        """The exact bytes of token ids: what `decode` shows as U+FFFD is still itself here."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        return b"".join([self.token_bytes(token) for token in ids])

    def token_bytes(self, token):
        """The bytes of one token id; of a special token its name (`special_tokens` tells which ids those are)."""
        try:
            return self._tokens[token]
        except (KeyError, TypeError):
            raise UserError(
                f"token id {token!r} is not in this tokenizer's vocabulary of size {self.vocab_size}; "
                "decode with the tokenizer that made the ids"
            ) from None

    def stream_decoder(self, errors="replace"):
        """A StreamDecoder: `.push(id)` gives text as it completes, `.finish()` the rest."""
        return StreamDecoder(self, errors)

    @cached_property
    def vocabulary_hash(self):
        """SHA-256 (hexadecimal) of all that decides which ids a text becomes: equal hashes, equal ids."""
        return sha256_of(json.dumps(self._identity(), sort_keys=True))

    def _identity(self):
        """What the hash is taken of; a subclass adds what else decides its ids."""
        tokens = {token: content.hex() for token, content in self._tokens.items()}
        return {"kind": self.kind, "tokens": tokens, "special_tokens": self.special_tokens}

    def save(self, folder):
        """Write `folder/tokenizer.json` in Hugging Face's format, atomically."""
        write_json(Path(folder) / FILE_NAME, sign(self._to_json(), self.kind, self.vocabulary_hash))

    @classmethod
    def load(cls, folder):
        """The tokenizer in `folder`, which `save` wrote. UserError for a missing, damaged or other file."""
        return cls._read(Path(folder) / FILE_NAME)

    @classmethod
    def _read(cls, path):
        """The tokenizer in one tokenizer.json, ours (then its hash is compared) or another project's."""
        content = read_json(path)
        kind, expected_hash = signature(content, path)
        if kind != cls.kind:
            raise UserError(f"{path} holds a {kind} tokenizer, not a {cls.kind} one; load_tokenizer(folder) loads any")
        tokenizer = parsed(cls._from_json, content, path)
        if expected_hash not in (None, tokenizer.vocabulary_hash):
            raise UserError(f"{path} was changed since it was written (its vocabulary_hash differs); save it again")
        return tokenizer

    def _to_json(self):
        """The content of tokenizer.json."""
        raise NotImplementedError

    @classmethod
    def _from_json(cls, content):
        """The tokenizer that `_to_json` described; any exception means that the content is damaged."""
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={self.special_tokens})"
