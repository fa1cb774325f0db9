"""Byte-level byte-pair encoding, the tokenizer of GPT-2, GPT-4, Llama 3 and Qwen.

Text is cut into pieces by a pattern, each piece is written as bytes, and the bytes are merged pair by pair as learned.
Source: Sennrich, Haddow, Birch 2016; Radford et al. 2019 (GPT-2), section 2.2.
"""

import unicodedata
import warnings

from tinyllm.errors import UserError
from tinyllm.files import atomic_write, read_json, write_json
from tinyllm.tokenizers.batches import on_all_cores
from tinyllm.tokenizers.bpe_files import gpt2_files, parts_of_gpt2, parts_of_tiktoken, read_lines, tiktoken_lines
from tinyllm.tokenizers.bpe_merging import merge_ids
from tinyllm.tokenizers.bpe_rungs import Rungs
from tinyllm.tokenizers.bpe_training import learn_merges_fast
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.huggingface import NORMAL_FORMS, bpe_from_json, bpe_json, parsed
from tinyllm.tokenizers.patterns import PATTERNS, pattern_text, splitter
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, number_special_tokens
from tinyllm.tokenizers.texts import check_texts
from tinyllm.tokenizers.tokenizer import Tokenizer
from tinyllm.tokenizers.word_counting import count_words

# Text repeats its words, so the ids of pieces are remembered: at most so many, and none longer than so many characters,
# that no text can fill the memory.
REMEMBERED_PIECES = 500_000
REMEMBERED_LENGTH = 40


class BPETokenizer(Tokenizer):
    """Byte-level BPE: any text can be encoded, and decoding gives it back exactly.

    A trained vocabulary has the 256 bytes first (in GPT-2's order), then the merges as learned, then special tokens.
    (With a normalizer or add_prefix_space, which only some files of others ask for, decoding gives the text as these
    changed it.)
    """

    kind = "bpe"

    def __init__(
        self,
        tokens,
        merges,
        pattern,
        special_tokens,
        *,
        added_tokens=None,
        normalizer=None,
        add_prefix_space=False,
        ignore_merges=False,
    ):
        """tokens: dict id -> bytes, all 256 single bytes among them. merges: list of (left id, right id) in the order
        learned. pattern: the name of one ("gpt2", "gpt4", "gpt4o") or a regular expression. special_tokens,
        added_tokens: dict name -> id.

        What the tokenizers of other models do besides: normalizer: "NFC" (Qwen 2), "NFD", "NFKC" or "NFKD", the Unicode
        normal form that text is brought to first. add_prefix_space: a space in front of text that has none.
        ignore_merges: a piece that is a token as a whole becomes that one, even if no merges lead there (Llama 3).
        """
        super().__init__(tokens, special_tokens, added_tokens)
        ids = {content: token for token, content in tokens.items()}
        if len(ids) != len(tokens):
            twice = next(content for token, content in tokens.items() if ids[content] != token)
            raise UserError(f"the token {twice!r} occurs twice in the vocabulary; give each bytes of its own")
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise UserError(
                f"expected a byte-level vocabulary, which has all 256 bytes; {len(missing)} are missing, "
                f"the first is {missing[0]:#04x}; use a vocabulary trained on bytes"
            )
        self.pattern = pattern_text(pattern)
        self.merges = merges
        self.normalizer, self.add_prefix_space = normalizer, bool(add_prefix_space)
        self.ignore_merges = bool(ignore_merges)
        self._check_options()
        self._changes_text = normalizer is not None or self.add_prefix_space
        self._whole_pieces = ids if ignore_merges else {}
        self._byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._ranks = ranks_of(tokens, ids, merges)
        self._split = splitter(self.pattern)
        self._remembered = {}
        self._rungs = Rungs(tokens, self._byte_ids, self._ranks, self.pattern, ignore_merges=self.ignore_merges)

    def _check_options(self):
        """UserError for an option that is not here, or that tokenizer.json could not say."""
        if self.normalizer not in (None, *NORMAL_FORMS):
            raise UserError(f"normalizer must be None or one of {', '.join(NORMAL_FORMS)}; got {self.normalizer!r}")
        if self.add_prefix_space and self.pattern != PATTERNS["gpt2"]:
            raise UserError('add_prefix_space goes with the pattern "gpt2" only, as in tokenizer.json; leave it out')

    @classmethod
    def train(cls, texts, vocab_size=8192, pattern="gpt4", special_tokens=(END_OF_TEXT,), progress=None):
        """Learn a vocabulary of `vocab_size` tokens, the 256 bytes and the special ones included, from texts.

        texts: an iterable of str, read once. pattern: "gpt2", "gpt4", "gpt4o" or an expression of the `regex` module.
        special_tokens: names; where one stands in the texts it separates and is not learned from.
        progress: called with (merges done, merges wanted). The outcome depends on how often each piece occurs and on
        nothing else; ties go to the smallest pair of ids (`learn_merges`).
        Errors: UserError for a vocab_size below 256 plus the special tokens, or above what the texts support; for a
        pattern that leaves over a part of the texts.
        Warns where there were more different pieces than memory holds (`count_words`).
        """
        special_tokens = list(number_special_tokens(special_tokens, 0))
        merges_wanted(vocab_size, special_tokens)  # a size that cannot be is refused before the texts are read
        words = count_words(texts, pattern, special_tokens)
        if words.dropped:
            warnings.warn(words.note(), stacklevel=2)
        return cls.train_on_words(words, vocab_size, pattern, special_tokens, progress)

    @classmethod
    def train_on_words(cls, words, vocab_size=8192, pattern="gpt4", special_tokens=(END_OF_TEXT,), progress=None):
        """`train` on pieces that `count_words` has counted, with the same pattern and special tokens.

        Counting takes most of the time, and once is enough for vocabularies of several sizes.
        """
        special_tokens = list(number_special_tokens(special_tokens, 0))
        wanted = merges_wanted(vocab_size, special_tokens)
        merges = learn_merges_fast(words, wanted, progress)
        if len(merges) < wanted:
            most = vocab_size - wanted + len(merges)
            raise UserError(
                f"vocab_size is {vocab_size}, but these texts support only {most} tokens (every piece of them is one "
                f"token by then); choose vocab_size={most} or less, or train on more text"
            )
        tokens = {token: bytes([byte]) for token, byte in enumerate(BYTE_ORDER)}
        for left, right in merges:
            tokens[len(tokens)] = tokens[left] + tokens[right]
        return cls(tokens, merges, pattern, number_special_tokens(special_tokens, len(tokens)))

    def use_rung(self, name=None):
        """Encode by "python", "numpy" or "numba" from now on; None: as is fastest. All give the same ids.

        Errors: UserError for another name, and for "numba" where it is not installed, the pattern is the user's own, or
        ignore_merges would have it look up tokens that are too long for its tables.
        """
        self._rungs.use(name)

    @property
    def rung(self):
        """Which of them encodes now."""
        return self._rungs.name

    def encode(self, text, *, allowed_special=(), disallowed_special=()):
        encoder = self._rungs.encoder
        if encoder is None or allowed_special or disallowed_special or self.added_tokens or self._changes_text:
            return super().encode(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
        return encoder.encode(text)  # the usual case, by the shortest way

    def encode_to_array(self, text, *, allowed_special=(), disallowed_special=()):
        encoder = self._rungs.encoder
        if encoder is None or allowed_special or disallowed_special or self.added_tokens or self._changes_text:
            return super().encode_to_array(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
        return encoder.encode_to_array(text)

    encode.__doc__ = Tokenizer.encode.__doc__
    encode_to_array.__doc__ = Tokenizer.encode_to_array.__doc__

    def encode_batch(self, texts, *, allowed_special=(), disallowed_special=()):
        """`encode_to_array` of each text, a list of int32 arrays. Compiled kernels do so on all cores."""
        texts = list(check_texts(texts))
        self._rungs.encoder_for(sum(map(len, texts)))

        def encode(text):
            return self.encode_to_array(text, allowed_special=allowed_special, disallowed_special=disallowed_special)

        return on_all_cores(encode, texts)

    def _encode_ordinary_to_array(self, text):
        encoder = self._rungs.encoder_for(len(text))
        return super()._encode_ordinary_to_array(text) if encoder is None else encoder.encode_to_array(text)

    def _encode_ordinary(self, text):
        encoder = self._rungs.encoder_for(len(text))
        if encoder is not None:
            return encoder.encode(text)
        ids, remembered = [], self._remembered
        for piece in self._split(text):
            known = remembered.get(piece)
            ids += self._encode_piece(piece) if known is None else known
        return ids

    def _prepared(self, text, before):
        if self.normalizer is not None:
            text = unicodedata.normalize(self.normalizer, text)
        has_space = not self.add_prefix_space or not text or text.startswith(" ") or not self._begins(before)
        return text if has_space else " " + text

    def _encode_piece(self, piece):
        content = piece.encode("utf-8")
        whole = self._whole_pieces.get(content)
        ids = merge_ids([self._byte_ids[byte] for byte in content], self._ranks) if whole is None else [whole]
        if len(self._remembered) < REMEMBERED_PIECES and len(piece) <= REMEMBERED_LENGTH:
            self._remembered[piece] = ids
        return ids

    def _identity(self):
        return super()._identity() | {"merges": self.merges, "pattern": self.pattern} | self._options()

    def _options(self):
        """The options that are not as they are by default, which is how every hash was made before there were any."""
        options = {name: getattr(self, name) for name in ("normalizer", "add_prefix_space", "ignore_merges")}
        return {name: value for name, value in options.items() if value}

    def _to_json(self):
        return bpe_json(self._ordinary, self.special_tokens, self.merges, self.pattern, **self._options())

    @classmethod
    def _from_json(cls, content):
        return cls(**bpe_from_json(content))

    @classmethod
    def from_huggingface(cls, tokenizer_json):
        """From the path of another project's tokenizer.json, if it is byte-level BPE.

        A tokenizer_config.json beside it is kept in `config`.
        Errors: UserError naming what the file asks for that is not here (a normalizer, another model, …).
        """
        return cls.from_file(tokenizer_json)

    @classmethod
    def from_gpt2(cls, encoder_json, vocab_bpe):
        """From the paths of OpenAI's two GPT-2 files (elsewhere vocab.json and merges.txt).

        Errors: UserError for a damaged file, naming it, and the line of vocab.bpe.
        """
        vocabulary, lines = read_json(encoder_json), read_lines(vocab_bpe)

        def parse(vocabulary):
            tokens, merges, special_tokens = parts_of_gpt2(vocabulary, lines)
            return cls(tokens, merges, "gpt2", special_tokens)

        return parsed(parse, vocabulary, f"{encoder_json} with {vocab_bpe}")

    @classmethod
    def from_tiktoken(cls, file, pattern="gpt4", special_tokens=()):
        """From the path of a tiktoken rank file (r50k_base has pattern "gpt2", cl100k_base has "gpt4").

        The file holds no special tokens. special_tokens: names, which get the ids after the largest one (as in
        r50k_base), or a dict name -> id; cl100k_base leaves a gap:
        {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276}.
        Errors: UserError for a damaged file, naming it and the line.
        """

        def parse(lines):
            tokens, merges = parts_of_tiktoken(lines)
            numbered = isinstance(special_tokens, dict)
            named = special_tokens if numbered else number_special_tokens(special_tokens, max(tokens) + 1)
            return cls(tokens, merges, pattern, named)

        return parsed(parse, read_lines(file), file)

    def to_gpt2(self, encoder_json, vocab_bpe):
        """Write OpenAI's two files, each atomically; `from_gpt2` reads this tokenizer back from them.

        Errors: UserError for one that they cannot hold: another pattern than "gpt2", added tokens, an option.
        """
        if self.pattern != PATTERNS["gpt2"] or self.added_tokens or self._options():
            raise UserError(
                'GPT-2\'s files hold tokenizers with the pattern "gpt2", without added tokens and options; use save'
            )
        vocabulary, lines = gpt2_files(self._ordinary, self.merges, self.special_tokens)
        write_json(encoder_json, vocabulary)
        with atomic_write(vocab_bpe, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def to_tiktoken(self, file):
        """Write a tiktoken rank file, atomically. It holds neither pattern nor special tokens: `from_tiktoken` needs
        both again.

        Errors: UserError for a tokenizer that it cannot hold: one with added tokens, a normalizer or add_prefix_space,
        or whose merges do not follow from the order of its ids.
        """
        if self.added_tokens or self.normalizer or self.add_prefix_space:
            raise UserError("a rank file holds no added tokens, normalizer or add_prefix_space; use save")
        lines = tiktoken_lines(self._ordinary, self.merges)
        with atomic_write(file, "w") as opened:
            opened.write("".join(f"{line}\n" for line in lines))


def ranks_of(tokens, ids, merges):
    """Dict (left id, right id) -> (rank, merged id). UserError for a merge of or to what is no token, or one twice."""
    ranks = {}
    for rank, (left, right) in enumerate(merges):
        try:
            merged = ids[tokens[left] + tokens[right]]
        except (KeyError, TypeError):
            raise UserError(
                f"merge {rank} joins the ids {left!r} and {right!r} ({tokens.get(left)!r} and {tokens.get(right)!r}), "
                "but the vocabulary lacks them or what they make; is it the vocabulary of these merges?"
            ) from None
        if (left, right) in ranks:
            raise UserError(f"merge {rank} ({tokens[left]!r} and {tokens[right]!r}) occurs twice; name each once")
        ranks[left, right] = (rank, merged)
    return ranks


def merges_wanted(vocab_size, special_tokens=(END_OF_TEXT,)):
    """How many merges a vocabulary of this size needs; UserError if there is no room for bytes and special tokens."""
    wanted = vocab_size - 256 - len(special_tokens)
    if wanted < 0:
        raise UserError(
            f"vocab_size must be at least {vocab_size - wanted} (256 bytes, {len(special_tokens)} special tokens), "
            f"got {vocab_size}; choose a larger one"
        )
    return wanted
