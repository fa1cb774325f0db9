"""One token per character that occurs in a text: what the smallest models are taught on."""

from tinyllm.errors import UserError
from tinyllm.tokenizers.huggingface import special_tokens_of, tokenizer_json, vocabulary_of
from tinyllm.tokenizers.special_tokens import number_special_tokens
from tinyllm.tokenizers.texts import check_texts
from tinyllm.tokenizers.tokenizer import Tokenizer


class CharacterTokenizer(Tokenizer):
    """Ids are the characters of the training text in code point order, special tokens follow."""

    kind = "character"

    def __init__(self, characters, special_tokens=()):
        """characters: the vocabulary in id order, a text or a list; special_tokens: names, numbered after it."""
        characters = list(characters)
        if not characters:
            raise UserError("a character tokenizer needs at least one character; give it some text to train on")
        if len(set(characters)) < len(characters) or any(len(character) != 1 for character in characters):
            raise UserError("characters must be single and differ from each other; CharacterTokenizer.train finds them")
        self._ids = {character: token for token, character in enumerate(characters)}
        tokens = {token: character.encode("utf-8") for character, token in self._ids.items()}
        super().__init__(tokens, number_special_tokens(special_tokens, len(tokens)))

    @classmethod
    def train(cls, texts, special_tokens=()):
        """The tokenizer of all characters in `texts`, a collection of str, read once."""
        characters = set()
        for text in check_texts(texts):
            characters.update(text)
        return cls(sorted(characters), special_tokens)

    def _encode_ordinary(self, text):
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            unknown = error.args[0]
        raise UserError(
            f"the character {unknown!r} (U+{ord(unknown):04X}) is not among the {len(self._ids)} this tokenizer was "
            "trained on; leave it out, train on text that has it, or use a BPETokenizer or ByteTokenizer instead"
        )

    def _spelling(self, content):
        return content.decode("utf-8")

    def _to_json(self):
        # The name of the unknown token must be given, and may not be a token: the library then refuses as we do.
        model = {"type": "WordLevel", "vocab": self._ids | self.special_tokens, "unk_token": "<unknown character>"}
        each = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        return tokenizer_json(model, self.special_tokens, pre_tokenizer=each, decoder={"type": "Fuse"})

    @classmethod
    def _from_json(cls, content):
        characters = {token: character for character, token in vocabulary_of(content).items()}
        return cls([characters[token] for token in range(len(characters))])._with_named(special_tokens_of(content), {})
