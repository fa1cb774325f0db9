"""WordPiece: ids, text and vocabularies equal to Hugging Face's, over real and invented text and all code points."""

import json
import os
import random
from pathlib import Path

import measurements
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import WordPieceTokenizer, load_tokenizer
from tinyllm.tokenizers.bert_normalization import BertNormalization
from tinyllm.tokenizers.wordpiece import count_words
from tinyllm.tokenizers.wordpiece_training import alphabet_of, learn_pieces, symbols_of

huggingface = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or Path(__file__).parents[3] / "shared" / "reference")
TEXTS = ("wikitext2_test_raw", "bible", "tinystories_2MB", "tinyshakespeare", "taylorswift")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]
ANY_SETTINGS = [
    {},
    {"lowercase": False},
    {"strip_accents": False},
    {"lowercase": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"clean_text": False},
]

any_text = st.one_of(
    st.text(max_size=60),
    # Where the steps of normalization meet: marks of old and new Unicode, letters that change their length, all kinds
    # of white space and of nothing, special tokens whole and broken.
    st.lists(
        st.one_of(
            st.sampled_from(
                [*"aeszAESZΣσςİſẞǅéÅ日本가각한🙂.,'#!", *"\u0301\u0327\u0345\u07fd\u0898\u1ac1\u1ac5\U00011938"]
            ),
            st.sampled_from(
                [*" \t\n\r\x0b\x0c\x1c\x1f\x85\u00a0\u200b\u2028\u3000\ufeff\x00\ufffd\U0002b820\U0002b920"]
            ),
            st.sampled_from([*SPECIAL, "[CLS", "SEP]", "##", "ing", "n't", "'s", "unaffable", "A" * 99]),
        ),
        max_size=20,
    ).map("".join),
)


@pytest.fixture(scope="module")
def vocab_txt():
    path = REFERENCE / "tokenizers" / "bert" / "vocab.txt"
    if not path.is_file():
        pytest.skip(f"no reference files (TINYLLM_REFERENCE) in {REFERENCE}")
    return path


@pytest.fixture(scope="module")
def bert(vocab_txt):
    """BERT's vocabulary as ours and as Hugging Face's BertTokenizer."""
    theirs = transformers.BertTokenizerFast.from_pretrained(str(vocab_txt.parent), local_files_only=True)
    return WordPieceTokenizer.from_vocab_txt(vocab_txt), theirs


def normalizer(clean_text=True, tokenize_chinese_chars=True, strip_accents=None, lowercase=True):
    """Hugging Face's of the same settings."""
    return huggingface.normalizers.BertNormalizer(
        clean_text=clean_text,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )


def reference_lines(number):
    """Lines of the reference texts that are not blank, the same number of each."""
    draw, lines = random.Random(0), []
    for name in TEXTS:
        text = (REFERENCE / "text" / f"{name}.txt").read_text(encoding="utf-8")
        of_text = [line for line in text.split("\n") if line.strip()]
        lines += draw.sample(of_text, min(len(of_text), number // len(TEXTS)))
    return lines


def invented_lines(number):
    """Words of many scripts and of every plane, with every kind of space, mark and punctuation between them."""
    draw = random.Random(1)
    planes = [(0x21, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xE00), (0x1E00, 0x2070), (0x3040, 0x30FF)]
    planes += [(0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF)]
    planes += [(0x1F300, 0x1F700), (0xE0000, 0xE01FF), (0, 0x20), (0x2000, 0x2070)]
    words = [
        "the",
        "Unaffable",
        "naïve",
        "Ångström",
        "ΟΔΟΣ",
        "İstanbul",
        "日本語",
        "한국어",
        "cafe\u0301",
        "[MASK]",
        "don't",
    ]

    def word():
        if draw.random() < 0.5:
            return draw.choice(words)
        plane = draw.choice(planes)
        return "".join(chr(draw.randrange(*plane)) for _ in range(draw.randint(1, 8)))

    spaces = [" "] * 8 + ["\t", "  ", "\u00a0", "\u3000", "\u2009", "\u200b", "\x0b", "\x1f", "", "", ", ", "—", "。"]
    return ["".join(word() + draw.choice(spaces) for _ in range(draw.randint(1, 12))) for _ in range(number)]


def test_ids_equal_bert_tokenizer_on_10000_lines(bert):
    ours, theirs = bert
    lines = [*reference_lines(8000), *invented_lines(4000)]
    assert len(lines) >= 10_000
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    different = [
        line for line, ids in zip(lines, expected, strict=True) if ours.encode(line, allowed_special="all") != ids
    ]
    measurements.record("WordPiece", "ids of lines", compared=len(lines), different=len(different))
    assert not different
    # Brackets are punctuation: what is not allowed is words and never the special token.
    special = set(ours.special_tokens.values()) - {ours.special_tokens["[UNK]"]}
    assert not any(special & set(ours.encode(line)) for line in lines)


def test_decoded_text_equals_bert_tokenizer(bert):
    ours, theirs = bert
    for line in [*reference_lines(1000), *invented_lines(500)]:
        ids = ours.encode(line, allowed_special="all")
        assert ours.decode(ids) == theirs.backend_tokenizer.decode(ids, skip_special_tokens=False)


@settings(max_examples=1000, deadline=None)
@given(text=any_text)
def test_ids_equal_bert_tokenizer_on_any_text(bert, text):
    ours, theirs = bert
    ids = ours.encode(text, allowed_special="all")
    assert ids == theirs.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == theirs.backend_tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("options", [{}, {"clean_text": False, "lowercase": False, "strip_accents": True}], ids=str)
def test_words_are_equal_for_every_code_point(options):
    """Alone, inside a word and between two accents, which decomposition may put in another order."""
    ours, theirs = BertNormalization(**options), normalizer(**options)
    split = huggingface.pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    different = []
    for code in CODE_POINTS:
        text = f"{chr(code)} a{chr(code)}b e\u0345{chr(code)}\u0301"
        normalized = theirs.normalize_str(text)
        if ours.normalize(text) != normalized or ours.words(text) != [word for word, _ in split(normalized)]:
            different.append(f"U+{code:04X}")
    measurements.record("WordPiece", f"code points {options}", compared=len(CODE_POINTS), different=len(different))
    assert not different


@settings(max_examples=1000, deadline=None)
@given(text=any_text, options=st.sampled_from(ANY_SETTINGS))
def test_words_are_equal_with_any_settings(text, options):
    normalized = normalizer(**options).normalize_str(text)
    assert BertNormalization(**options).normalize(text) == normalized
    theirs = huggingface.pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalized)
    assert BertNormalization(**options).words(text) == [word for word, _ in theirs]


def trained(files, vocab_size, normalized_by):
    """Hugging Face's trainer on files; the tokenizer and its vocabulary in id order."""
    theirs = huggingface.Tokenizer(huggingface.models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = normalized_by
    theirs.pre_tokenizer = huggingface.pre_tokenizers.BertPreTokenizer()
    trainer = huggingface.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, limit_alphabet=1000, show_progress=False
    )
    theirs.train([str(file) for file in files], trainer)
    vocabulary = json.loads(theirs.to_str())["model"]["vocab"]
    return theirs, sorted(vocabulary, key=vocabulary.get)


@pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
@pytest.mark.parametrize("vocab_size", [1000, 8192])
@pytest.mark.parametrize("name", ["bible", "tinystories_2MB", "wikitext2_test_raw"])
def test_training_learns_the_vocabulary_of_huggingface(vocab_txt, name, vocab_size, lowercase):
    """Their letters inside a word get ids in the order of a hash table, another in every process, and ties hang on it;
    so our trainer is given their letters in their order. Then every piece is the same, in the same order.
    """
    file = REFERENCE / "text" / f"{name}.txt"
    _, theirs = trained([file], vocab_size, normalizer(lowercase=lowercase))
    words = count_words([file.read_text(encoding="utf-8")], BertNormalization(lowercase), [])
    symbols = symbols_of(words, alphabet_of(words, 1000))
    first, end = len(SPECIAL), len(SPECIAL) + len(symbols)
    assert theirs[:first] == SPECIAL
    assert sorted(theirs[first:end]) == sorted(symbols)
    assert learn_pieces(words, theirs[first:end], vocab_size - end) == theirs[end:]
    ours = WordPieceTokenizer.train([file.read_text(encoding="utf-8")], vocab_size, SPECIAL, lowercase=lowercase)
    differing = len(set(ours.vocabulary) - set(theirs))
    measurements.record("WordPiece", f"{name}, {vocab_size}, order of ties", compared=vocab_size, different=differing)
    assert differing < 0.01 * vocab_size


def test_huggingface_reads_our_file_and_we_read_theirs(tmp_path):
    text = "The Café's old sailor, [MASK] and the SEA shells. " * 3
    for place, options in enumerate(ANY_SETTINGS):
        folder = tmp_path / str(place)
        ours = WordPieceTokenizer.train(
            [text], vocab_size=50, special_tokens=SPECIAL, cleanup=place % 2 == 0, **options
        )
        ours.save(folder)
        theirs = huggingface.Tokenizer.from_file(str(folder / "tokenizer.json"))
        for sample in (text, "[CLS] sells\x0bshe é É 日本 [SEP]", *invented_lines(50)):
            ids = ours.encode(sample, allowed_special="all")
            assert theirs.encode(sample).ids == ids
            assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)
        assert theirs.get_vocab_size() == ours.vocab_size
        theirs.save(str(folder / "tokenizer.json"))
        assert "tinyllm" not in (folder / "tokenizer.json").read_text(encoding="utf-8")
        assert load_tokenizer(folder).vocabulary_hash == ours.vocabulary_hash


def test_a_file_of_bert_tokenizer_is_read(bert, tmp_path):
    ours, theirs = bert
    theirs.save_pretrained(str(tmp_path))
    assert WordPieceTokenizer.from_huggingface(tmp_path / "tokenizer.json").vocabulary_hash == ours.vocabulary_hash
    ours.save_vocab_txt(tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_bytes() == (REFERENCE / "tokenizers" / "bert" / "vocab.txt").read_bytes()
