"""SentencePiece-style byte-pair encoding, the tokenizer of Llama 2, Mistral and llama2.c.

The vocabulary is a list of pieces of text, each with a score. A text begins as its characters; the two neighbours whose
joined piece has the highest score are joined, until no two are a piece. A space is written "▁" (U+2581), a text gets
one in front, and a character that is no piece is written as its bytes.
Source: Kudo and Richardson 2018, "SentencePiece: A simple and language independent subword tokenizer and detokenizer
for Neural Text Processing"; llama2.c's run.c.
"""

import itertools
import math
import re
from pathlib import Path

from tinyllm.errors import UserError, did_you_mean
from tinyllm.files import atomic_write
from tinyllm.tokenizers.bpe_merging import merge_ids
from tinyllm.tokenizers.huggingface import parsed
from tinyllm.tokenizers.llama2c import parts_of_llama2c, write_llama2c
from tinyllm.tokenizers.sentencepiece_json import sentencepiece_from_json, sentencepiece_json
from tinyllm.tokenizers.sentencepiece_pieces import SPACE, byte_of, merges_by_score, merges_in_order, scores_of_merges
from tinyllm.tokenizers.special_tokens import check_id
from tinyllm.tokenizers.texts import check_text
from tinyllm.tokenizers.tokenizer import Tokenizer

# Where a "▁" is put in front. "always": at the beginning of a text and after every special or added token (Llama 2,
# SentencePiece). "unless_spaced": there, unless a space stands there already; "first_unless_spaced": the same, at the
# beginning of a text only (both are Hugging Face's "Metaspace").
DUMMY_PREFIXES = ("always", "unless_spaced", "first_unless_spaced", "never")

WORD = re.compile(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+")
# Ids of words are remembered as in byte-level BPE, but not so many or so long ones that they could fill the memory.
REMEMBERED_WORDS = 500_000
REMEMBERED_LENGTH = 40


class SentencePieceBPETokenizer(Tokenizer):
    """BPE over scored pieces of text. decode(encode(text)) is the text, but for "▁" itself, which becomes a space.

    (With the prefixes of "Metaspace" a space at the beginning is lost, and without byte fallback unknown characters.)
    `encode` puts no <s> in front: whoever runs a model that expects it writes [special_tokens["<s>"], *ids].
    """

    kind = "sentencepiece_bpe"
    loses = '"▁", which becomes a space'
    ends_of_text = (*Tokenizer.ends_of_text, "</s>")

    def __init__(
        self, pieces, scores=None, *, merges=None, special_tokens, added_tokens=None, unknown="<unk>", prefix="always"
    ):
        """pieces: dict id -> str of the ordinary tokens, "▁" for a space, "<0x0A>" for a byte.

        Either scores: dict id -> float, of two neighbours those with the highest score of their joined piece are joined
        first, the leftmost on a tie; or merges: list of (left id, right id) in the order of joining, as Hugging Face's
        files have it, which keep no scores. special_tokens: dict name -> id; unknown: the name of the one that stands
        for characters that neither are pieces nor have their bytes among them, or None. prefix: one of DUMMY_PREFIXES.
        """
        if (scores is None) == (merges is None):
            raise UserError("give either the scores of the pieces or the merges in their order, one of the two")
        if prefix not in DUMMY_PREFIXES:
            known = ", ".join(DUMMY_PREFIXES)
            raise UserError(f"prefix must be one of {known}; got {prefix!r}{did_you_mean(prefix, DUMMY_PREFIXES)}")
        self._pieces, self._scores, self._merge_list = dict(pieces), scores, merges
        self._ids = ids_of_pieces(self._pieces)
        self._check_scores()
        byte_ids = {byte_of(piece): token for piece, token in self._ids.items() if byte_of(piece) is not None}
        contents = {token: piece.replace(SPACE, " ").encode("utf-8") for piece, token in self._ids.items()}
        contents |= {token: bytes([byte]) for byte, token in byte_ids.items()}
        super().__init__(contents, special_tokens, added_tokens)
        if unknown is not None and unknown not in special_tokens:
            raise UserError(f"the unknown token {unknown!r} is not among the special tokens; add it, or pass None")
        self.unknown, self.prefix = unknown, prefix
        self.words_bring_spaces = prefix != "never"
        self._unknown_id = special_tokens.get(unknown)
        self._byte_ids = byte_ids
        self._merges = (
            merges_by_score(self._ids, scores) if merges is None else merges_in_order(self._pieces, self._ids, merges)
        )
        # No merge crosses from text into a space: then every word can be joined by itself, and be remembered.
        self._has_words = not any(SPACE in self._pieces[joined].lstrip(SPACE) for _, joined in self._merges.values())
        self._remembered = {}

    def _check_scores(self):
        """UserError where a piece has no score, or one that is no number."""
        for token in self._pieces if self._scores is not None else ():
            score = self._scores.get(token)
            if type(score) not in (int, float) or not math.isfinite(score):
                piece = self._pieces[token]
                raise UserError(f"the piece {piece!r} (id {token}) needs a score, a finite number; got {score!r}")

    def _prepared(self, text, before):
        text = text.replace(" ", SPACE)
        has_space = not text or not self._has_prefix(before) or (text[0] == SPACE and self.prefix != "always")
        return text if has_space else SPACE + text

    def _encode_ordinary(self, text):
        ids = []
        for word in WORD.findall(text) if self._has_words else [text]:
            known = self._remembered.get(word)
            ids += self._encode_word(word) if known is None else known
        return once_in_a_row(ids, self._unknown_id) if self._unknown_id in ids else ids

    def _has_prefix(self, before):
        """Whether text that follows the token id `before` (None: nothing) gets a "▁" in front."""
        if self.prefix in ("always", "unless_spaced"):
            # The unknown token is special, but it stands for characters in the middle of a text. (Where a text has the
            # name "<unk>" and it is allowed, Hugging Face puts a "▁" after it; decoding could not tell the two apart.)
            return self._begins(before) and (before is None or before != self._unknown_id)
        return before is None and self.prefix == "first_unless_spaced"

    def _encode_word(self, word):
        ids = []
        for character in word:
            ids += self._encode_character(character)
        ids = merge_ids(ids, self._merges)
        if len(self._remembered) < REMEMBERED_WORDS and len(word) <= REMEMBERED_LENGTH:
            self._remembered[word] = ids
        return ids

    def _encode_unknown(self, character):
        """The ids of a character that is no piece: its bytes, or else the unknown token."""
        ids = [self._byte_ids.get(byte) for byte in character.encode("utf-8")]
        if None not in ids:
            return ids
        if self._unknown_id is None:
            raise UserError(
                f"the character {character!r} (U+{ord(character):04X}) is not in this vocabulary, which has neither "
                "its bytes nor an unknown token; leave it out of the text, or use a vocabulary with byte fallback"
            )
        return [self._unknown_id]

    def decode_bytes(self, ids):
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        contents = [self.token_bytes(token) for token in ids]
        for place, before in enumerate(ids[:-1]):
            if self.drops_space_after(before):
                contents[place + 1] = contents[place + 1].removeprefix(b" ")
        return b"".join(contents)

    def drops_space_after(self, token):
        return self._has_prefix(token)

    def num_bytes_of_tokens(self, text):
        prepared = self._prepared(text, None)
        sizes = [0] * (len(prepared) - len(text)) + [len(character.encode("utf-8")) for character in text]
        lengths, at = [], 0
        for token in self._encode_ordinary(prepared):
            end = at + self._characters_of(token, prepared, at)
            lengths.append(sum(sizes[at:end]))
            at = end
        return lengths

    def _characters_of(self, token, prepared, at):
        """How many characters, from place `at` on, a token id of ordinary text stands for; of a character's bytes the
        first stands for all of it.
        """
        if token == self._unknown_id:
            unknown = itertools.takewhile(lambda c: self._encode_character(c) == [token], prepared[at:])
            return sum(1 for _ in unknown)
        byte = byte_of(self._pieces[token])
        return len(self._pieces[token]) if byte is None else int(byte & 0xC0 != 0x80)

    def _encode_character(self, character):
        token = self._ids.get(character)
        return self._encode_unknown(character) if token is None else [token]

    def _spellings(self, tokens):
        return set(self._pieces.values())

    def _identity(self):
        order = {"scores": self._scores} if self._merge_list is None else {"merges": self._merge_list}
        return super()._identity() | order | {"pieces": self._pieces, "prefix": self.prefix, "unknown": self.unknown}

    def _to_json(self):
        pairs = sorted(self._merges, key=lambda pair: (self._merges[pair], pair))
        return sentencepiece_json(
            self._pieces, self._scores, pairs, self.special_tokens, self.unknown, self.prefix, bool(self._byte_ids)
        )

    @classmethod
    def _from_json(cls, content):
        return cls(**sentencepiece_from_json(content))

    @classmethod
    def from_huggingface(cls, tokenizer_json):
        """From the path of a tokenizer.json of Llama 2's kind: BPE, "▁" for spaces, byte fallback.

        Such a file has merges and no scores; the merges are followed in their order.
        Errors: UserError naming what the file asks for that is not here.
        """
        return cls.from_file(tokenizer_json)

    @classmethod
    def from_llama2c(cls, file):
        """From the path of llama2.c's tokenizer.bin. Errors: UserError for a damaged file, naming the place in it."""
        file = Path(file)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{file} does not exist") from None

        def parse(data):
            pieces, scores, special_tokens = parts_of_llama2c(data)
            return cls(pieces, scores, special_tokens=special_tokens)

        return parsed(parse, data, file)

    def to_llama2c(self, file):
        """Write llama2.c's tokenizer.bin, atomically.

        Errors: UserError where run.c would read another tokenizer: it knows <unk>, <s>, </s> as the ids 0, 1, 2, the
        bytes as 3 to 258, scores, and nothing else. Where this one has merges in their order, scores are made of it.
        """
        if self.prefix != "always" or self.added_tokens:
            raise UserError("tokenizer.bin cannot say that a tokenizer has added tokens or no dummy prefix; use save")
        scores = self._scores or scores_of_merges(self._pieces, self._ids, self._merges)
        content = write_llama2c(self._pieces, scores, self.special_tokens)
        with atomic_write(file) as opened:
            opened.write(content)


def once_in_a_row(ids, unknown):
    """The ids with one unknown token for several in a row, as SentencePiece has it."""
    return [token for token, before in zip(ids, [None, *ids], strict=False) if not token == before == unknown]


def ids_of_pieces(pieces):
    """Dict piece -> id. UserError where a piece is no text, empty, or there twice."""
    ids = {}
    for token, piece in pieces.items():
        check_id(token)
        check_text(piece)
        if not piece:
            raise UserError(f"the piece with the id {token} is empty; every piece needs a text")
        if piece in ids:
            raise UserError(f"the piece {piece!r} occurs twice, as {ids[piece]} and {token}; name each once")
        ids[piece] = token
    return ids
