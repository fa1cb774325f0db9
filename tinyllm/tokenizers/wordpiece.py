"""WordPiece, the tokenizer of BERT: the longest known beginning of a word, then the longest of what is left, as ##x.

Source: Schuster and Nakajima 2012, "Japanese and Korean Voice Search"; Wu et al. 2016, "Google's Neural Machine
Translation System", section 4.1; Devlin et al. 2019, "BERT". The loop is the plain one, quadratic in the length of a
word, which is bounded; Song et al. 2021, "Fast WordPiece Tokenization", do it in linear time.
"""

import re
from collections import Counter
from dataclasses import asdict

from tinyllm.errors import UserError
from tinyllm.files import atomic_write
from tinyllm.tokenizers.bert_normalization import BertNormalization
from tinyllm.tokenizers.huggingface import parsed
from tinyllm.tokenizers.special_tokens import END_OF_TEXT, number_special_tokens, split_at
from tinyllm.tokenizers.texts import check_text, check_texts
from tinyllm.tokenizers.tokenizer import Tokenizer
from tinyllm.tokenizers.wordpiece_files import read_vocab_txt, wordpiece_from_json, wordpiece_json
from tinyllm.tokenizers.wordpiece_training import CONTINUATION, alphabet_of, learn_pieces, symbols_of

UNKNOWN = "[UNK]"
BERT_SPECIAL_TOKENS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")

# Normalization does not reach across these, so the ids of what stands between them can be remembered as in bpe.py.
# Other white space is no safe cut: of some, cleaning makes nothing.
CHUNK = re.compile("[^ \t\n\r]+")
REMEMBERED_CHUNKS = 500_000
REMEMBERED_LENGTH = 40

# Hugging Face's WordPiece decoder writes words that begin so without a space before them.
WITHOUT_SPACE = (".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re")


class WordPieceTokenizer(Tokenizer):
    """Words and parts of words, spelled from the left. Ids equal those of Hugging Face's `BertTokenizer`.

    WordPiece loses what its normalization drops, so decode(encode(text)) is in general not text: with the defaults
    capitals, accents, control characters, which white space stood between words and whether any stood around
    punctuation. A word of letters that are not in the vocabulary, or of more than max_input_chars_per_word letters,
    becomes the one token [UNK].

    Decoding puts a space before every word but the first and, with `cleanup`, none before . ? ! and , (as Hugging Face
    does): "it's here." comes back as "it ' s here.".
    """

    kind = "wordpiece"
    words_bring_spaces = True

    def __init__(
        self,
        vocabulary,
        special_tokens=BERT_SPECIAL_TOKENS,
        added_tokens=(),
        *,
        lowercase=True,
        strip_accents=None,
        tokenize_chinese_chars=True,
        clean_text=True,
        unknown=UNKNOWN,
        max_input_chars_per_word=100,
        cleanup=True,
    ):
        """vocabulary: list of str in id order, special and added tokens and `unknown` among them; what continues a word
        begins with ##. special_tokens: the names of those that text never becomes unless it is allowed to;
        added_tokens: of those that it always becomes. lowercase, …, clean_text: as `BertNormalization` has them.
        """
        special_tokens, added_tokens = (
            list(number_special_tokens(names, 0)) for names in (special_tokens, added_tokens)
        )
        ids = numbered(vocabulary)
        for name in (unknown, *special_tokens, *added_tokens):
            if name not in ids:
                raise UserError(f"the vocabulary has no {name!r}; add it, or name another unknown or special token")
        check_settings(
            flags={
                "lowercase": lowercase,
                "tokenize_chinese_chars": tokenize_chinese_chars,
                "clean_text": clean_text,
                "cleanup": cleanup,
                "strip_accents": strip_accents is not None and strip_accents,
            },
            longest=max_input_chars_per_word,
        )
        ordinary = {name: token for name, token in ids.items() if name not in {*special_tokens, *added_tokens}}
        self._names = {token: name for name, token in ordinary.items()}
        self.normalization = BertNormalization(lowercase, strip_accents, tokenize_chinese_chars, clean_text)
        self.unknown = unknown
        self.max_input_chars_per_word = max_input_chars_per_word
        self.cleanup = cleanup
        tokens = {token: self._bytes_of_name(name) for name, token in ordinary.items()}
        super().__init__(tokens, *({name: ids[name] for name in names} for names in (special_tokens, added_tokens)))
        self.vocabulary = self._in_id_order()
        self._unknown_id = ids[unknown]
        self._beginnings = {name: token for name, token in ordinary.items() if not name.startswith(CONTINUATION)}
        self._continuations = {
            name.removeprefix(CONTINUATION): token for name, token in ordinary.items() if name.startswith(CONTINUATION)
        }
        self._longest = max((len(name) for name in (*self._beginnings, *self._continuations)), default=0)
        self._remembered = {}

    @classmethod
    def train(
        cls,
        texts,
        vocab_size=8192,
        special_tokens=(*BERT_SPECIAL_TOKENS, END_OF_TEXT),
        *,
        limit_alphabet=1000,
        progress=None,
        **settings,
    ):
        """Learn a vocabulary of `vocab_size` tokens, letters and special tokens included, from texts.

        texts: a collection of str, read once. special_tokens: names, which get the first ids; where one stands in the
        texts it separates and is not learned from. limit_alphabet: only so many letters, the most frequent ones.
        progress: called with (pieces made, pieces wanted). settings: the other arguments of WordPieceTokenizer.
        The outcome depends on how often each word occurs and on nothing else (`learn_pieces` has the rule for ties).
        Errors: UserError for a vocab_size below the letters and special tokens, or above what the texts support.
        """
        special_tokens = list(number_special_tokens(special_tokens, 0))
        started = cls(special_tokens, special_tokens, **settings)  # refuses wrong settings before the long work
        for name in special_tokens:
            if started.normalization.words(name) == [name]:
                raise UserError(f"special token {name!r} is also ordinary text; choose a name such as '<|end|>'")
        words = count_words(texts, started.normalization, special_tokens)
        symbols = symbols_of(words, alphabet_of(words, limit_alphabet))
        wanted = vocab_size - len(special_tokens) - len(symbols)
        if wanted < 0:
            raise UserError(
                f"vocab_size must be at least {vocab_size - wanted} ({len(special_tokens)} special tokens, and "
                f"{len(symbols)} letters at the beginning of a word and inside), got {vocab_size}; choose a larger one "
                "or a smaller limit_alphabet"
            )
        pieces = learn_pieces(words, symbols, wanted, progress)
        if len(pieces) < wanted:
            most = vocab_size - wanted + len(pieces)
            raise UserError(
                f"vocab_size is {vocab_size}, but these texts support only {most} tokens (every word of them is one "
                f"token by then); choose vocab_size={most} or less, or train on more text"
            )
        return cls([*special_tokens, *symbols, *pieces], special_tokens, **settings)

    @property
    def loses(self):
        """What text loses on its way through ids and back, in words."""
        dropped = ["capitals"] if self.normalization.lowercase else []
        dropped += ["accents"] if self.normalization.strips_accents else []
        return ", ".join([*dropped, "line breaks and other white space", f"words it cannot spell ({self.unknown})"])

    def _in_id_order(self):
        """All tokens, a list of str."""
        named = {token: name for name, token in (self.special_tokens | self.added_tokens).items()}
        return [name for _, name in sorted((self._names | named).items())]

    def _with_named(self, special_tokens, added_tokens):
        other = super()._with_named(special_tokens, added_tokens)
        other.vocabulary = other._in_id_order()
        return other

    def _bytes_of_name(self, name):
        if name.startswith(CONTINUATION):
            return name.removeprefix(CONTINUATION).encode("utf-8")
        close = self.cleanup and name.startswith(WITHOUT_SPACE)
        return (name if close else f" {name}").encode("utf-8")

    def _spellings(self, tokens):
        return set(self._names.values())

    def _encode_ordinary(self, text):
        ids, remembered = [], self._remembered
        for chunk in CHUNK.findall(text):
            known = remembered.get(chunk)
            ids += self._encode_chunk(chunk) if known is None else known
        return ids

    def _encode_chunk(self, chunk):
        ids = [token for word in self.normalization.words(chunk) for token in self._encode_word(word)]
        if len(self._remembered) < REMEMBERED_CHUNKS and len(chunk) <= REMEMBERED_LENGTH:
            self._remembered[chunk] = ids
        return ids

    def _encode_word(self, word):
        """Greedy longest match first: [UNK] for the whole word as soon as no piece fits."""
        if len(word) > self.max_input_chars_per_word:
            return [self._unknown_id]
        ids, start, pieces = [], 0, self._beginnings
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                token = pieces.get(word[start:end])
                if token is not None:
                    break
            else:
                return [self._unknown_id]
            ids.append(token)
            start, pieces = end, self._continuations
        return ids

    def num_bytes_of_tokens(self, text):
        """Bytes of the text for each id of encode(text): a chunk and the white space before it count at its last id."""
        lengths, done = [], 0
        for chunk in CHUNK.finditer(text):
            if ids := self._encode_ordinary(chunk.group()):
                lengths += [0] * (len(ids) - 1) + [len(text[done : chunk.end()].encode("utf-8"))]
                done = chunk.end()
        if lengths:
            lengths[-1] += len(text[done:].encode("utf-8"))
        return lengths

    def _identity(self):
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "special_tokens": self.special_tokens,
            "normalization": asdict(self.normalization) | {"strip_accents": self.normalization.strips_accents},
            "unknown": self.unknown,
            "max_input_chars_per_word": self.max_input_chars_per_word,
        } | ({"added_tokens": self.added_tokens} if self.added_tokens else {})

    def _to_json(self):
        return wordpiece_json(self)

    @classmethod
    def _from_json(cls, content):
        return cls(**wordpiece_from_json(content))

    @classmethod
    def from_huggingface(cls, tokenizer_json):
        """From the path of another project's tokenizer.json, if it is BERT's WordPiece; added tokens become special.

        Errors: UserError naming what the file asks for that is not here (another normalizer, another model, …).
        """
        return cls.from_file(tokenizer_json)

    @classmethod
    def from_vocab_txt(cls, path, lowercase=True, special_tokens=None, **settings):
        """From the path of BERT's vocab.txt, which holds one token a line and no settings: give those.

        special_tokens: names; None for those of [PAD], [UNK], [CLS], [SEP], [MASK] and <|endoftext|> that are in it.
        settings: the other arguments of WordPieceTokenizer.
        """

        def parse(vocabulary):
            known = set(vocabulary)
            usual = [name for name in (*BERT_SPECIAL_TOKENS, END_OF_TEXT) if name in known]
            return cls(vocabulary, usual if special_tokens is None else special_tokens, lowercase=lowercase, **settings)

        return parsed(parse, read_vocab_txt(path), path)

    def save_vocab_txt(self, path):
        """Write the vocabulary, one token a line, atomically. The settings are not in it; `save` keeps those too."""
        broken = next((name for name in self.vocabulary if "\n" in name or "\r" in name), None)
        if broken is not None:
            raise UserError(f"token {broken!r} has a line break, which vocab.txt cannot hold; use save(folder)")
        with atomic_write(path, "w") as file:
            file.writelines(f"{name}\n" for name in self.vocabulary)


def numbered(vocabulary):
    """dict token -> id; UserError for an entry that is no text, is empty or is there twice."""
    ids = {}
    for token, name in enumerate(vocabulary):
        check_text(name)
        if not name or name in ids:
            problem = f"is {name!r}, as is entry {ids[name]}" if name else "is empty"
            raise UserError(f"entry {token} of the vocabulary {problem}; every token must be some text and differ")
        ids[name] = token
    return ids


def check_settings(flags, longest):
    """UserError for a flag that is neither True nor False, or a bound that is no positive whole number."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{name} must be true or false, got {value!r}")
    if type(longest) is not int or longest < 1:
        raise UserError(f"max_input_chars_per_word must be a whole number of at least 1, got {longest!r}")


def count_words(texts, normalization, special_tokens):
    """Counter of the words of texts, where special tokens separate and are not counted."""
    chunks, words = Counter(), Counter()
    for text in check_texts(texts):
        for part in split_at(special_tokens, text)[::2]:
            chunks.update(CHUNK.findall(part))
    for chunk, count in chunks.items():
        for word in normalization.words(chunk):
            words[word] += count
    return words
