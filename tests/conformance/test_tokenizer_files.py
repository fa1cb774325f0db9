"""The published GPT-2 and GPT-4 vocabularies, read from each of their files, on real text."""

import os
from pathlib import Path

import pytest

from tinyllm.tokenizers import BPETokenizer, load_tokenizer

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or ROOT / ".." / "shared" / "reference")
GPT2 = REFERENCE / "tokenizers" / "gpt2"
TIKTOKEN = REFERENCE / "tokenizers" / "tiktoken"

CL100K_SPECIAL_TOKENS = {
    "<|endoftext|>": 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not GPT2.is_dir(), reason=f"no reference files in {REFERENCE} (set TINYLLM_REFERENCE)"),
]


def text_of(name):
    return (REFERENCE / "text" / name).read_bytes().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def gpt2():
    return BPETokenizer.from_gpt2(GPT2 / "encoder.json", GPT2 / "vocab.bpe")


@pytest.fixture(scope="module")
def gpt4():
    return BPETokenizer.from_tiktoken(TIKTOKEN / "cl100k_base.tiktoken", "gpt4", CL100K_SPECIAL_TOKENS)


def test_three_files_of_gpt2_are_one_tokenizer(gpt2):
    assert (gpt2.vocab_size, len(gpt2.merges), gpt2.end_of_text) == (50257, 50000, 50256)
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    huggingface = BPETokenizer.from_huggingface(GPT2 / "hf_tokenizer.json")
    tiktoken = BPETokenizer.from_tiktoken(TIKTOKEN / "r50k_base.tiktoken", "gpt2", ["<|endoftext|>"])
    assert gpt2.vocabulary_hash == huggingface.vocabulary_hash == tiktoken.vocabulary_hash


def test_gpt2_counts_on_tinyshakespeare(gpt2):
    text = text_of("tinyshakespeare.txt")
    training, validation = text[:1_003_854], text[1_003_854:]
    assert (len(gpt2.encode(training)), len(gpt2.encode(validation))) == (301_966, 36_059)


def test_gpt2_counts_on_tinystories(gpt2):
    text = text_of("tinystories_2MB.txt")
    ids = gpt2.encode(text)
    assert len(ids) == 523_038  # the published count reads the separators as ordinary text
    special = gpt2.encode(text, allowed_special="all")
    assert special.count(gpt2.end_of_text) == text.count("<|endoftext|>")
    assert len(special) == 509_140  # as tokenizers and tiktoken count with them
    assert gpt2.decode(ids) == gpt2.decode(special) == text


def test_gpt2_ids_that_everyone_knows(gpt2):
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert gpt2.encode("<|endoftext|>", allowed_special="all") == [50256]


def test_gpt4_ids_that_everyone_knows(gpt4):
    assert gpt4.vocab_size == 100277
    assert gpt4.encode("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]
    assert gpt4.decode([100257]) == "<|endoftext|>"
    with pytest.raises(ValueError, match="token id 100256 is not in"):  # the published vocabulary has a gap here
        gpt4.decode([100256])


@pytest.mark.parametrize("name", ["taylorswift.txt", "aaa.txt", "random.txt", "wikitext2_test_raw.txt"])
def test_round_trip_of_real_and_hard_text(gpt4, name):
    text = text_of(name)
    assert gpt4.decode(gpt4.encode(text)) == text


def test_saved_and_loaded_again(gpt2, gpt4, tmp_path):
    for tokenizer in (gpt2, gpt4):
        tokenizer.save(tmp_path)
        assert load_tokenizer(tmp_path).vocabulary_hash == tokenizer.vocabulary_hash
