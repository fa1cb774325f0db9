"""The same ids as Hugging Face's `tokenizers` and OpenAI's `tiktoken`, and the same merges as the former's trainer."""

import json
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.patterns import PATTERNS

huggingface = pytest.importorskip("tokenizers")
tiktoken = pytest.importorskip("tiktoken")

SPECIAL = ["<|endoftext|>", "<|end|>"]


def invented_text(seed, words=4000):
    """Words with the frequencies of a language, numbers, punctuation, several scripts and kinds of white space."""
    draw = random.Random(seed)
    syllables = ["ba", "ko", "the", "ing", "é", "ß", "日", "本", "ш", "и", "🙂", "12", "7", "'s", "'LL", "ſ", "\u0301"]
    lexicon = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(400)]
    separators = [" "] * 12 + [
        ", ",
        ". ",
        "\n",
        "\n\n",
        "  ",
        "\t",
        "\r\n",
        "\u00a0",
        "\u3000",
        "...",
        " (",
        ") ",
        "\u2028",
    ]
    chosen = draw.choices(lexicon, weights=[1 / rank for rank in range(1, 401)], k=words)
    return "".join(word + draw.choice(separators) for word in chosen)


TEXT = invented_text(0)
# The Unicode version of Python's tables bounds what the peers' tables know; newer letters may be cut differently.
known_characters = st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.category(c) != "Cn")
any_text = st.one_of(
    st.text(known_characters, max_size=60),
    st.text(st.sampled_from([*" \n\r\t'sStTlLvVeErRdDmM19a.,é日\u0301\u00a0\u2028\u0085\x1c\u017f🙂"]), max_size=60),
    st.lists(st.sampled_from(["<|end|>", "<|endoftext|>", "<|end", "|>", " ", "a", "\n"]), max_size=12).map("".join),
)


@pytest.fixture(scope="module", params=["gpt2", "gpt4"])
def pair(request, tmp_path_factory):
    """A trained tokenizer of ours and what the `tokenizers` library loads from its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    ours = BPETokenizer.train([TEXT], vocab_size=600, pattern=request.param, special_tokens=SPECIAL)
    ours.save(folder)
    return ours, huggingface.Tokenizer.from_file(str(folder / "tokenizer.json"))


@settings(max_examples=500, deadline=None)
@given(text=any_text)
def test_huggingface_agrees_with_our_file(pair, text):
    ours, theirs = pair
    ids = ours.encode(text, allowed_special="all")
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text
    assert theirs.get_vocab_size() == ours.vocab_size


@settings(max_examples=500, deadline=None)
@given(text=any_text)
def test_tiktoken_agrees(pair, text):
    ours, _ = pair
    # Its published patterns are written with possessive quantifiers; they must mean the same.
    pattern = {
        "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    }["gpt2" if ours.pattern == PATTERNS["gpt2"] else "gpt4"]
    ranks = {ours.token_bytes(token): token for token in range(ours.vocab_size - len(SPECIAL))}
    theirs = tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens=ours.special_tokens)
    assert theirs.encode(text, allowed_special="all") == ours.encode(text, allowed_special="all")
    assert theirs.encode(text, disallowed_special=()) == ours.encode(text)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@pytest.mark.parametrize(
    "text", [TEXT, invented_text(1, words=300), "aaaa aaab baaa aa " * 3], ids=["long", "short", "a"]
)
def test_training_makes_the_merges_of_huggingface(pattern, text):
    """Ties are frequent in all of these texts."""
    theirs = huggingface.Tokenizer(huggingface.models.BPE())
    split = huggingface.pre_tokenizers.Split(huggingface.Regex(PATTERNS[pattern]), "isolated")
    byte_level = huggingface.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = huggingface.pre_tokenizers.Sequence([split, byte_level])
    alphabet = huggingface.pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        [text], huggingface.trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    )
    theirs = json.loads(theirs.to_str())["model"]
    ours = BPETokenizer.train([text], vocab_size=len(theirs["vocab"]), pattern=pattern, special_tokens=())
    assert len(ours.merges) > 5
    assert [merge.split(" ") for merge in ours._to_json()["model"]["merges"]] == theirs["merges"]
    assert ours._to_json()["model"]["vocab"] == theirs["vocab"]
    assert len(BYTE_ORDER) + len(theirs["merges"]) == ours.vocab_size


@pytest.mark.parametrize(
    "ours", [ByteTokenizer(SPECIAL), CharacterTokenizer.train([TEXT], SPECIAL)], ids=["byte", "character"]
)
def test_huggingface_reads_the_simple_tokenizers(ours, tmp_path):
    ours.save(tmp_path)
    theirs = huggingface.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = TEXT[:3000] + "<|end|>" + TEXT[-100:]
    ids = ours.encode(text[:3000]) + ours.encode("<|end|>", allowed_special="all") + ours.encode(text[3007:])
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


def test_a_file_that_huggingface_wrote_is_read(pair, tmp_path):
    ours, theirs = pair
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert "tinyllm" not in (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert BPETokenizer.from_huggingface(tmp_path / "tokenizer.json").vocabulary_hash == ours.vocabulary_hash
