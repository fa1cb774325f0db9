"""The merges of Hugging Face's BpeTrainer on whole corpora and on random words; and the one thing it does otherwise."""

import json
import os
import random
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from measurements import record

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, bpe_training, count_words
from tinyllm.tokenizers.bpe_training import learn_merges_fast
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER, spell
from tinyllm.tokenizers.patterns import PATTERNS
from tinyllm.tokenizers.words import Words

huggingface = pytest.importorskip("tokenizers")

TEXT = Path(os.environ.get("TINYLLM_REFERENCE", Path(__file__).parents[3] / "shared/reference")) / "text"
SIZES = (1000, 8192, 32_000)


def reference(name):
    if not (TEXT / name).is_file():
        pytest.skip(f"{TEXT / name} is not there; set TINYLLM_REFERENCE")
    return [(TEXT / name).read_bytes().decode("utf-8")]


def standard_library():
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return [path.read_bytes().decode("utf-8", "replace") for path in files]


def theirs(texts, pre_tokenizers, **settings):
    """The merges that their trainer learns, as pairs of spelled tokens, and the spelled tokens in the order of ids."""
    tokenizer = huggingface.Tokenizer(huggingface.models.BPE())
    byte_level = huggingface.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = huggingface.pre_tokenizers.Sequence([*pre_tokenizers, byte_level])
    alphabet = huggingface.pre_tokenizers.ByteLevel.alphabet()
    trainer = huggingface.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False, **settings)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [tuple(merge) for merge in model["merges"]], sorted(model["vocab"], key=model["vocab"].get)


def by_pattern(name):
    return [huggingface.pre_tokenizers.Split(huggingface.Regex(PATTERNS[name]), "isolated")]


def spelled(merges):
    """Our merges, written as theirs."""
    tokens = [spell([byte]) for byte in BYTE_ORDER]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return [(tokens[left], tokens[right]) for left, right in merges]


@pytest.mark.parametrize(
    ("name", "pattern"), [("bible.txt", "gpt4"), ("tinystories_2MB.txt", "gpt2"), ("standard library", "gpt4")]
)
def test_whole_corpora(name, pattern):
    """What a trainer learns first does not depend on how far it goes, so theirs trains once, the largest size."""
    texts = standard_library() if name == "standard library" else reference(name)
    merges, vocabulary = theirs(texts, by_pattern(pattern), vocab_size=SIZES[-1])
    words = count_words(texts, pattern, ())
    for size in SIZES:
        size = min(size, len(vocabulary))  # a small text does not support the largest
        ours = BPETokenizer.train_on_words(words, size, pattern, ())
        assert spelled(ours.merges) == merges[: size - 256]
        assert [spell(ours.token_bytes(token)) for token in range(size)] == vocabulary[:size]
        record("merges equal to Hugging Face's", f"{name}, {pattern}", **{f"{size:,} tokens": len(ours.merges)})
    if size < SIZES[-1]:
        with pytest.raises(UserError, match=f"support only {size} tokens"):
            BPETokenizer.train_on_words(words, size + 1, pattern, ())


def test_what_a_trainer_learns_first_does_not_depend_on_how_far_it_goes():
    texts = reference("tinystories_2MB.txt")
    large, vocabulary = theirs(texts, by_pattern("gpt4"), vocab_size=8192)
    small = theirs(texts, by_pattern("gpt4"), vocab_size=1000)
    assert small == (large[: 1000 - 256], vocabulary[:1000])


@pytest.mark.parametrize("seed", range(40))
def test_random_words(seed, monkeypatch):
    """Ties, runs of one letter, pairs that overlap, words that become one token, until nothing is left to merge."""
    monkeypatch.setattr(bpe_training, "A_LITTLE", 0)  # so that kernels learn from these few
    draw = random.Random(seed)
    alphabet = "aab bcdé日"[: draw.randint(1, 9)]
    counts = Counter()
    for _ in range(draw.randint(1, 40)):
        counts["".join(draw.choices(alphabet, k=draw.randint(1, 15)))] += draw.choice([1, 1, 2, 3, 50])
    texts = ["\n".join(counts.elements())]
    split = huggingface.pre_tokenizers.Split("\n", "removed")
    merges, _ = theirs(texts, [split], vocab_size=256 + 200)
    assert len(merges) > 0 or max(len(word.encode()) for word in counts) == 1
    assert spelled(learn_merges_fast(Words.of(counts), 200)) == merges


def test_a_special_token_that_stands_in_the_text():
    """Their trainer does not look for it, and gives what it learns of the same spelling the special token's id."""
    texts = ["the thin path", "on on"]
    merges, vocabulary = theirs(texts, by_pattern("gpt4"), vocab_size=260, special_tokens=["th"])
    assert merges[0] == ("t", "h")
    assert len(merges) == len(vocabulary) - 256  # one more than there are new tokens
    ours = BPETokenizer.train(texts, vocab_size=259, special_tokens=["th"])
    assert ("t", "h") not in spelled(ours.merges)
    assert spelled(ours.merges)[0] == merges[1] == ("o", "n")
