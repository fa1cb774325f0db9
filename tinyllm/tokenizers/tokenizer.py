"""What all tokenizers share: named tokens, chats, decoding, the hash of the vocabulary, the folder for saving."""

import copy
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import read_json, sha256_of, write_json
from tinyllm.tokenizers.byte_symbols import spell
from tinyllm.tokenizers.chats import chat_parts
from tinyllm.tokenizers.huggingface import added_token, named_tokens_of, parsed, sign, signature
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, check_id, number_special_tokens, split_at
from tinyllm.tokenizers.streaming import StreamDecoder
from tinyllm.tokenizers.texts import check_text, check_texts
from tinyllm.tokenizers.tokenizer_config import read_config, write_config

FILE_NAME = "tokenizer.json"


class Tokenizer:
    """Text to token ids and back. A subclass says how ordinary text is encoded and what its file looks like.

    special_tokens: dict name -> id of tokens that command the model; text becomes one only where the caller says so.
    added_tokens: dict name -> id of words added to a finished vocabulary; text always becomes them.
    config: what a tokenizer_config.json beside the vocabulary said and `save` writes back: the names "bos_token",
    "eos_token", "unk_token", "pad_token", and "chat_template". Nothing here depends on it.
    """

    kind = None  # the name the file and the hash carry
    loses = ""  # what text loses on its way through ids and back, in words; nothing: decode(encode(text)) == text
    ends_of_text = (END_OF_TEXT,)  # names of the special token that stands between documents, the first that is there
    words_bring_spaces = False  # a token that begins a word begins with a space, which no text begins with

    def __init__(self, tokens, special_tokens, added_tokens=None):
        """tokens: dict id -> bytes of the ordinary tokens; special_tokens, added_tokens: dict name -> id."""
        self.special_tokens = dict(special_tokens)
        self.added_tokens = dict(added_tokens or {})
        self.config = {}
        self._check(tokens)
        self._ordinary = tokens
        named = self.special_tokens | self.added_tokens
        self._tokens = tokens | {token: self._bytes_of_name(name) for name, token in named.items()}
        self.vocab_size = max(self._tokens) + 1
        ends = [self.special_tokens[name] for name in self.ends_of_text if name in self.special_tokens]
        self.end_of_text = ends[0] if ends else None

    def _check(self, tokens):
        """UserError where an id is no id, or a name or id of a named token also means something else."""
        named = [("special", *item) for item in self.special_tokens.items()]
        named += [("added", *item) for item in self.added_tokens.items()]
        names = self._spellings(tokens) if named else set()
        taken = set(tokens)
        for token in tokens:
            check_id(token)
        for sort, name, token in named:
            check_text(name)
            check_id(token)
            if not name or name in names:
                raise UserError(f"{sort} token {name!r} is also ordinary text; choose a name such as '<|end|>'")
            if token in taken:
                raise UserError(f"{sort} token {name!r} has the id {token} of another token; give it one of its own")
            names.add(name)
            taken.add(token)

    def _spellings(self, tokens):
        """The set of all spellings that the file has for the ordinary tokens."""
        return {self._spelling(content) for content in tokens.values()}

    def _bytes_of_name(self, name):
        """The bytes that a special or added token brings to a text."""
        return name.encode("utf-8")

    def _spelling(self, content):
        """How the file spells a token of these bytes."""
        return spell(content)

    def with_tokens(self, special_tokens=(), added_tokens=()):
        """This tokenizer with more names, which get the ids from vocab_size on, the special ones first.

        A model needs an embedding for each of the new ids. Errors: UserError for a name that is already taken.
        """
        special_tokens = number_special_tokens(special_tokens, self.vocab_size)
        added_tokens = number_special_tokens(added_tokens, self.vocab_size + len(special_tokens))
        for name in (*special_tokens, *added_tokens):
            if name in self.special_tokens or name in self.added_tokens:
                raise UserError(f"the tokenizer has the token {name!r} already; leave it out")
        return self._with_named(self.special_tokens | special_tokens, self.added_tokens | added_tokens)

    def _with_named(self, special_tokens, added_tokens):
        """This tokenizer with exactly these special and added tokens."""
        other = copy.copy(self)
        other.__dict__.pop("vocabulary_hash", None)
        Tokenizer.__init__(other, self._ordinary, special_tokens, added_tokens)
        other.config = dict(self.config)
        return other

    def encode(self, text, *, allowed_special=(), disallowed_special=()):
        """Token ids of `text`, a list of int.

        What looks like a special token is ordinary text, so that a user's text can never command the model.
        allowed_special: names that become their one id instead, or "all". disallowed_special: names that may not
        occur in the text, or "all" (which means all that are not allowed).
        Errors: UserError (a ValueError) for a disallowed name in the text, an unknown name, a lone surrogate.
        """
        return self._encode_named(text, self._names_in(text, allowed_special, disallowed_special))

    def _names_in(self, text, allowed_special, disallowed_special):
        """The set of names that become their ids in a text; UserError where it, or an argument of encode, is wrong."""
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
        return allowed | set(self.added_tokens)

    def _encode_named(self, text, names, before=None):
        """Token ids of text that follows the id `before` (None: nothing), where `names` are the tokens they name."""
        ids = []
        for part, token in self._stretches(text, names, before):
            ids += self._encode_ordinary(part) if token is None else [token]
        return ids

    def _stretches(self, text, names, before=None):
        """Yield a text cut at names, as (prepared ordinary text, None) or ("", id of a name)."""
        for place, part in enumerate(split_at(names, text)):
            if place % 2:
                before = self.special_tokens[part] if part in self.special_tokens else self.added_tokens[part]
                yield "", before
            else:
                yield self._prepared(part, before), None

    def encode_chat(self, messages, template="tinyllm", *, add_generation_prompt=False):
        """Token ids of a chat, a list of int. A message can never command the model: its text stays ordinary text.

        messages: list of {"role": "system", "user" or "assistant", "content": str}. template: "tinyllm", "chatml",
        "llama3" or a ChatTemplate (`tinyllm.tokenizers.chats`). add_generation_prompt: end where the assistant's next
        words begin. Errors: UserError for another role or key, a content that is no text, a tokenizer that lacks a
        token of the template.
        """
        parts = chat_parts(self, messages, template, add_generation_prompt=add_generation_prompt)
        return [token for ids, _ in parts for token in ids]

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

    def _prepared(self, text, before):
        """What `_encode_ordinary` is given of text that follows the id `before` (None: nothing): normalized, or with a
        space in front, where a subclass does so.
        """
        return text

    def _begins(self, before):
        """Whether text that follows the id `before` begins a stretch of ordinary text: after nothing, or a name."""
        return before is None or before not in self._ordinary

    def _encode_ordinary(self, text):
        """Token ids of prepared text in which nothing is named."""
        raise NotImplementedError

    def _encode_ordinary_to_array(self, text):
        """The same as an int32 array."""
        return np.array(self._encode_ordinary(text), dtype=np.int32)

    def encode_to_array(self, text, *, allowed_special=(), disallowed_special=()):
        """`encode` as a one-dimensional int32 array, without a list on the way where a subclass knows how."""
        names = self._names_in(text, allowed_special, disallowed_special)
        arrays = [
            self._encode_ordinary_to_array(part) if token is None else np.array([token], np.int32)
            for part, token in self._stretches(text, names)
        ]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def encode_batch(self, texts, *, allowed_special=(), disallowed_special=()):
        """`encode_to_array` of each text, a list of int32 arrays."""
        return [
            self.encode_to_array(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
            for text in check_texts(texts)
        ]

    def decode(self, ids, errors="replace", *, continuing=False):
        """The text of token ids (a list or a one-dimensional array); special tokens give their names.

        errors: what to do with bytes that are not UTF-8, as in `bytes.decode`: "replace" (by U+FFFD), "ignore" or
        "strict" (UnicodeDecodeError). continuing: the text goes on another one, such as a prompt; where words bring
        their spaces, the first one's stays. Errors: UserError for an id outside the vocabulary.
        """
        content = self.decode_bytes(ids)
        if self.words_bring_spaces and not continuing:
            content = content.removeprefix(b" ")
        return content.decode("utf-8", errors)

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

    def drops_space_after(self, token):
        """Whether decoding leaves out a space that the token after this id begins with."""
        return False

    def num_bytes_of_tokens(self, text):
        """How many UTF-8 bytes of the text each id of encode(text) stands for, a list of int: together all of it."""
        return [len(self.token_bytes(token)) for token in self.encode(text)]

    def stream_decoder(self, errors="replace", *, continuing=False):
        """A StreamDecoder: `.push(id)` gives text as it completes, `.finish()` the rest. continuing: as in `decode`."""
        return StreamDecoder(self, errors, continuing)

    @cached_property
    def vocabulary_hash(self):
        """SHA-256 (hexadecimal) of all that decides which ids a text becomes: equal hashes, equal ids."""
        return sha256_of(json.dumps(self._identity(), sort_keys=True))

    def _identity(self):
        """What the hash is taken of; a subclass adds what else decides its ids."""
        tokens = {token: content.hex() for token, content in self._tokens.items()}
        added = {"added_tokens": self.added_tokens} if self.added_tokens else {}
        return {"kind": self.kind, "tokens": tokens, "special_tokens": self.special_tokens} | added

    def save(self, folder):
        """Write `folder/tokenizer.json` in Hugging Face's format, atomically, and tokenizer_config.json if there is a
        `config` to keep.
        """
        content = self._to_json()
        content["added_tokens"] += [
            added_token(name, token, special=False) for name, token in self.added_tokens.items()
        ]
        content["model"]["vocab"] |= self.added_tokens
        write_json(Path(folder) / FILE_NAME, sign(content, self.kind, self.vocabulary_hash))
        write_config(folder, self.config)

    @classmethod
    def load(cls, folder):
        """The tokenizer in `folder`, which `save` wrote. UserError for a missing, damaged or other file."""
        return cls.from_file(Path(folder) / FILE_NAME)

    @classmethod
    def from_file(cls, path):
        """The tokenizer in one tokenizer.json, ours (then its hash is compared) or another project's."""
        content = read_json(path)
        kind, expected_hash = signature(content, path)
        if kind != cls.kind:
            raise UserError(f"{path} holds a {kind} tokenizer, not a {cls.kind} one; load_tokenizer(folder) loads any")
        tokenizer = parsed(cls._with_added_from_json, content, path)
        if expected_hash not in (None, tokenizer.vocabulary_hash):
            raise UserError(f"{path} was changed since it was written (its vocabulary_hash differs); save it again")
        tokenizer.config = read_config(Path(path).parent)
        return tokenizer

    @classmethod
    def _with_added_from_json(cls, content):
        """The tokenizer of a tokenizer.json, with its added tokens."""
        tokenizer, (_, added_tokens) = cls._from_json(content), named_tokens_of(content)
        return tokenizer._with_named(tokenizer.special_tokens, added_tokens) if added_tokens else tokenizer

    def _to_json(self):
        """The content of tokenizer.json."""
        raise NotImplementedError

    @classmethod
    def _from_json(cls, content):
        """The tokenizer that `_to_json` described; any exception means that the content is damaged."""
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={self.special_tokens})"
