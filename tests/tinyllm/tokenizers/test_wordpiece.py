"""WordPiece: which ids a text becomes, what comes back, and that its vocabulary is learned as the definition says."""

import itertools
import json
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import WordPieceTokenizer, load_tokenizer
from tinyllm.tokenizers.bert_characters import ACCENTS, IDEOGRAPHS, INVISIBLE, PUNCTUATION, SPACES, CharacterSet
from tinyllm.tokenizers.bert_normalization import BertNormalization
from tinyllm.tokenizers.wordpiece_training import alphabet_of, learn_pieces, symbols_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["un", "##aff", "##able", "##a", "a", "the", "dog", "##s", ".", ",", "!", "'", "s", "日", "本", "cafe", "café"]
VOCABULARY = [*SPECIAL, *WORDS]
TOKENIZER = WordPieceTokenizer(VOCABULARY)
TEXTS = ["She sells sea shells by the sea shore. " * 5, "The shells she sells are surely seashells; sure! " * 3]
any_text = st.one_of(
    st.text(max_size=60),
    st.text(
        st.sampled_from([*"aesAESun.,!'[]# \n\t\r", *"\x0b\x0c\x1c\x85\u00a0\u200b\u2028é日\u0301\ufffdſΣİ🙂"]),
        max_size=60,
    ),
)


def names(tokenizer, text, **options):
    """The tokens of a text with spaces between them."""
    return " ".join(tokenizer.vocabulary[token] for token in tokenizer.encode(text, **options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unaffable", "un ##aff ##able"),
        ("  The\tDOGS,\nthe dog. ", "the dog ##s , the dog ."),
        ("una", "un ##a"),  # the longest beginning, even where a shorter one would let the rest be written
        ("unaffx the", "[UNK] the"),
        ("affable", "[UNK]"),  # what continues a word does not begin one
        ("the日本dog", "the 日 本 dog"),
        ("Cafe\u0301 CAFÉ", "cafe cafe"),
        ("the\x00 d\u200bo\x0bg\ufffd", "the dog"),  # what is invisible is nothing, even a vertical tab
        ("dog\u00a0dog\u2028dog\u3000dog", "dog dog dog dog"),
        ("dog's!", "dog ' s !"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_words_are_spelled_by_the_longest_known_beginning(text, expected):
    assert names(TOKENIZER, text) == expected


def test_words_that_are_too_long_are_unknown():
    assert names(TOKENIZER, "un" + "a" * 98) == "un" + " ##a" * 98
    assert names(TOKENIZER, "un" + "a" * 99 + " dog") == "[UNK] dog"
    assert names(WordPieceTokenizer(VOCABULARY, max_input_chars_per_word=3), "una dogs dog") == "un ##a [UNK] dog"


def test_the_steps_of_normalization_can_be_left_out():
    assert names(WordPieceTokenizer(VOCABULARY, lowercase=False), "The the café cafe") == "[UNK] the café cafe"
    assert names(WordPieceTokenizer(VOCABULARY, strip_accents=False), "The CAFÉ") == "the café"
    assert names(WordPieceTokenizer(VOCABULARY, lowercase=False, strip_accents=True), "The café") == "[UNK] cafe"
    assert names(WordPieceTokenizer(VOCABULARY, tokenize_chinese_chars=False), "日 日本") == "日 [UNK]"
    uncleaned = WordPieceTokenizer(VOCABULARY, clean_text=False)
    # White space it is all the same, but for U+001C, which only Python takes for one.
    assert names(uncleaned, "the\x0bdog\x85dog\u2028dog d\x00og dog\x1cdog") == "the dog dog dog [UNK] [UNK]"


def test_special_text_is_ordinary_text_unless_allowed():
    # Brackets and the letters between them are not in this vocabulary.
    assert names(TOKENIZER, "[CLS] the dog[SEP]") == "[UNK] [UNK] [UNK] the dog [UNK] [UNK] [UNK]"
    assert names(TOKENIZER, "[CLS] the dog[SEP]", allowed_special="all") == "[CLS] the dog [SEP]"
    assert names(TOKENIZER, "[CLS]the dog[SEP]", allowed_special=["[SEP]"]).endswith("] the dog [SEP]")
    with pytest.raises(UserError, match=r"special token '\[MASK\]', which is disallowed"):
        TOKENIZER.encode("the [MASK]", disallowed_special="all")
    # A special token that looks like a word is no word.
    tokenizer = WordPieceTokenizer(["[UNK]", "the", "t", "##he"], special_tokens=["[UNK]", "the"])
    assert names(tokenizer, "the") == "t ##he"
    assert names(tokenizer, "the", allowed_special="all") == "the"
    assert tokenizer.end_of_text is None
    assert WordPieceTokenizer([*VOCABULARY, "<|endoftext|>"], ["<|endoftext|>"]).end_of_text == len(VOCABULARY)


def test_more_tokens_by_name():
    more = TOKENIZER.with_tokens(["<|user|>"], ["the dog", "Un"])
    assert more.vocabulary == [*VOCABULARY, "<|user|>", "the dog", "Un"]
    assert names(more, "Una the dogs <|user|>") == "Un a the dog s [UNK] [UNK] [UNK] [UNK] [UNK]"
    assert names(more, "a<|user|>", allowed_special="all") == "a <|user|>"
    assert more.decode(more.encode("the dogs <|user|>", allowed_special="all")) == "the dog s <|user|>"
    for name in ("the", "##s", "[CLS]"):
        with pytest.raises(UserError, match=r"is also ordinary text|has the token '.CLS.' already"):
            TOKENIZER.with_tokens([name])
    assert TOKENIZER.vocabulary == VOCABULARY


def test_decoding_joins_words_by_spaces():
    ids = TOKENIZER.encode("Unaffable dogs, the\n\ndog's!")
    assert TOKENIZER.decode(ids) == "unaffable dogs, the dog ' s!"
    assert WordPieceTokenizer(VOCABULARY, cleanup=False).decode(ids) == "unaffable dogs , the dog ' s !"
    assert TOKENIZER.decode(TOKENIZER.encode("[CLS] the [MASK].", allowed_special="all")) == "[CLS] the [MASK]."
    assert TOKENIZER.decode(TOKENIZER.encode("[UNK]")) == "[UNK] [UNK] [UNK]"
    assert TOKENIZER.decode([]) == ""


def test_what_goes_on_a_prompt_begins_with_its_space():
    the, dog, s = TOKENIZER.encode("the dogs")
    for ids, text in (([the, dog], " the dog"), ([s, dog], "s dog"), ([TOKENIZER.encode(".")[0]], ".")):
        assert TOKENIZER.decode(ids, continuing=True) == text
        assert TOKENIZER.decode(ids) == text.removeprefix(" ")
        for continuing in (True, False):
            decoder = TOKENIZER.stream_decoder(continuing=continuing)
            for goes_on in (continuing, False):  # used again, it begins a text
                pieces = [*map(decoder.push, ids), decoder.finish()]
                assert "".join(pieces) == TOKENIZER.decode(ids, continuing=goes_on)


@settings(max_examples=300, deadline=None)
@given(text=any_text, lowercase=st.booleans(), cleanup=st.booleans())
def test_what_comes_back_is_the_normalized_text(text, lowercase, cleanup):
    """Up to spaces; letters that the vocabulary lacks are added to it."""
    words = BertNormalization(lowercase).words(text)
    letters = sorted(set("".join(words)))
    pieces = [*letters, *("##" + letter for letter in letters), "th", "##se"]
    tokenizer = WordPieceTokenizer(["[UNK]", *dict.fromkeys(pieces)], ["[UNK]"], lowercase=lowercase, cleanup=cleanup)
    ids = tokenizer.encode(text)
    assert tokenizer.encode_to_array(text).tolist() == ids
    assert tokenizer.decode(ids).replace(" ", "") == "".join(words)
    if not cleanup:
        assert tokenizer.decode(ids) == " ".join(words)
        assert tokenizer.encode(tokenizer.decode(ids)) == ids
    lengths = tokenizer.num_bytes_of_tokens(text)
    assert len(lengths) == len(ids)
    assert sum(lengths) == (len(text.encode("utf-8")) if ids else 0)


def test_bytes_are_those_of_the_text_itself():
    text = "  Café  THE\n\n\u200b dogs,\u3000日!\x00 "
    assert names(TOKENIZER, text) == "cafe the dog ##s , 日 !"
    assert TOKENIZER.num_bytes_of_tokens(text) == [7, 5, 0, 0, 0, 0, 20]
    assert TOKENIZER.num_bytes_of_tokens("") == []
    assert "capitals, accents, line breaks" in TOKENIZER.loses
    assert "capitals" not in WordPieceTokenizer(VOCABULARY, lowercase=False).loses


def test_remembered_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr("tinyllm.tokenizers.wordpiece.REMEMBERED_CHUNKS", 2)
    tokenizer = WordPieceTokenizer(VOCABULARY)
    for _ in range(2):
        assert names(tokenizer, "a the dog dogs " + "a" * 50).startswith("a the dog dog ##s")
        assert set(tokenizer._remembered) == {"a", "the"}


# Characters.


def categories(*wanted):
    return {code for code in range(0x110000) if unicodedata.category(chr(code)).startswith(wanted)}


@pytest.mark.parametrize(
    ("ours", "python", "changed"),
    [
        # A vowel sign of Hanunoo spaces since Unicode 14.
        (ACCENTS, {"Mn"}, {0x1734}),
        (INVISIBLE, {"Cc", "Cf", "Co"}, set()),
        # A sign of Canadian syllabics is a symbol since Unicode 12, one of Sharada a mark since 11.
        (PUNCTUATION, {"P"}, {0x166D, 0x111C9, *map(ord, "$+<=>^`|~")}),
    ],
    ids=["accents", "invisible", "punctuation"],
)
def test_character_sets_are_categories(ours, python, changed):
    """Python's Unicode is newer: what it has more was unassigned in 2015, or has changed since."""
    python = categories(*python)
    ours = {code for first, last in ours.ranges for code in range(first, last + 1)}
    assert {code for code in ours - python if unicodedata.category(chr(code)) != "Cn"} == changed
    assert len(python - ours) < 500
    assert {code for code in range(0x250) if code in python} == {code for code in ours - changed if code < 0x250}


def test_character_sets_hold_their_ranges():
    some = CharacterSet("41-43 45 1F600-1F601")
    assert [code for code in range(0x1F603) if code in some] == [0x41, 0x42, 0x43, 0x45, 0x1F600, 0x1F601]
    assert [code for code in range(0x3400) if code in SPACES] == [
        code for code in range(0x3400) if chr(code).isspace() and code not in range(0x1C, 0x20)
    ]
    assert ord("日") in IDEOGRAPHS
    assert ord("か") not in IDEOGRAPHS


def test_normalization_does_not_hang_on_the_version_of_python():
    normalization = BertNormalization()
    # A vowel sign of Unicode 13 is not taken apart, capitals of Unicode 16 and 17 have small letters, and a Greek sigma
    # does not look at its neighbours.
    assert normalization.normalize("\U00011938") == "\U00011938"
    assert normalization.normalize("\ua7cb\U00010d50\U00016ea0") == "\u0264\U00010d70\U00016ebb"
    assert normalization.normalize("ΟΔΟΣ İ ẞ") == "οδοσ i ß"
    assert normalization.normalize("A\u0301Å\u1ab0한") == "aa\u1112\u1161\u11ab"


# Training.


def learned_by_definition(words, symbols, number):
    """Count all pairs anew for each piece."""
    symbols = list(symbols)
    spelled = {
        word: [symbols.index(s) for s in [word[0], *("##" + c for c in word[1:])] if s in symbols] for word in words
    }
    end = len(symbols) + number
    while len(symbols) < end:
        counts = Counter()
        for word, ids in spelled.items():
            for pair in itertools.pairwise(ids):
                counts[pair] += words[word]
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        symbols.append(symbols[pair[0]] + symbols[pair[1]].removeprefix("##"))
        for word, ids in spelled.items():
            joined, at = [], 0
            while at < len(ids):
                found = tuple(ids[at : at + 2]) == pair
                joined.append(len(symbols) - 1 if found else ids[at])
                at += 2 if found else 1
            spelled[word] = joined
    return symbols[end - number :]


@settings(max_examples=300, deadline=None)
@given(
    words=st.dictionaries(st.text("abc", min_size=1, max_size=14), st.integers(1, 5), min_size=1, max_size=12),
    limit=st.integers(1, 3),
    number=st.integers(0, 40),
)
def test_learning_equals_the_definition(words, limit, number):
    symbols = symbols_of(words, alphabet_of(words, limit))
    calls = []
    pieces = learn_pieces(words, symbols, number, lambda *progress: calls.append(progress))
    assert pieces == learned_by_definition(words, symbols, number)
    assert len(set(pieces)) == len(pieces)
    assert not calls or calls[-1] == (len(pieces), number)


def test_training_makes_special_tokens_letters_and_pieces():
    tokenizer = WordPieceTokenizer.train(TEXTS, vocab_size=45)
    assert tokenizer.vocab_size == 45 == len(tokenizer.vocabulary)
    assert tokenizer.vocabulary[:6] == [*SPECIAL, "<|endoftext|>"]
    assert tokenizer.end_of_text == 5
    letters = sorted(set("".join(TEXTS).lower()) - {" "})
    assert tokenizer.vocabulary[6 : 6 + len(letters)] == letters
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0].lower().strip()
    assert tokenizer.encode("Sea")[0] == tokenizer.vocabulary.index("sea")


def test_training_depends_on_word_counts_only():
    one = WordPieceTokenizer.train(TEXTS, vocab_size=45)
    words = " ".join(TEXTS).split()
    other = WordPieceTokenizer.train([" \n".join(sorted(words)[::-1])], vocab_size=45)
    assert one.vocabulary_hash == other.vocabulary_hash
    separated = WordPieceTokenizer.train([TEXTS[0] + "[SEP]" + TEXTS[1]], vocab_size=45)
    assert separated.vocabulary_hash == one.vocabulary_hash
    cased = WordPieceTokenizer.train(TEXTS, vocab_size=45, lowercase=False)
    assert "S" in cased.vocabulary
    assert "S" not in one.vocabulary


def test_the_alphabet_is_limited_to_the_most_frequent_letters():
    counts = {"bb": 3, "ac": 2, "d": 2}
    assert alphabet_of(counts, 4) == ["a", "b", "c", "d"]
    assert alphabet_of(counts, 2) == ["a", "b"]
    tokenizer = WordPieceTokenizer.train(
        ["bb bb bb ac ac d d"], vocab_size=4, special_tokens=["[UNK]"], limit_alphabet=2
    )
    assert tokenizer.vocabulary == ["[UNK]", "a", "b", "##b"]
    assert names(tokenizer, "d bb") == "[UNK] b ##b"


def test_mistakes_in_training():
    with pytest.raises(UserError, match=r"vocab_size must be at least 29 .6 special tokens, and 23 letters .*got 20"):
        WordPieceTokenizer.train(TEXTS, vocab_size=20)
    with pytest.raises(UserError, match=r"these texts support only (\d+) tokens .*choose vocab_size=\1 or less"):
        WordPieceTokenizer.train(TEXTS, vocab_size=5000)
    with pytest.raises(UserError, match="texts must be a collection of texts"):
        WordPieceTokenizer.train("text", vocab_size=100)
    with pytest.raises(UserError, match=r"the vocabulary has no '\[UNK\]'; add it"):
        WordPieceTokenizer.train(TEXTS, vocab_size=45, special_tokens=[])
    with pytest.raises(UserError, match="special_tokens must be a collection of names"):
        WordPieceTokenizer.train(TEXTS, special_tokens="[UNK]")
    for name in ("sea", "!", "SEA"):
        with pytest.raises(UserError, match=f"special token {name!r} is also ordinary text; choose a name such as"):
            WordPieceTokenizer.train(TEXTS, 45, ["[UNK]", name], lowercase=name != "SEA")
    with pytest.raises(UserError, match="lowercase must be true or false, got 'yes'"):
        WordPieceTokenizer.train(TEXTS, lowercase="yes")


# Files.


def test_vocab_txt_there_and_back(tmp_path):
    tokenizer = WordPieceTokenizer.train(TEXTS, vocab_size=45)
    path = tmp_path / "vocab.txt"
    tokenizer.save_vocab_txt(path)
    assert path.read_bytes().decode() == "".join(f"{name}\n" for name in tokenizer.vocabulary)
    loaded = WordPieceTokenizer.from_vocab_txt(path)
    assert loaded.vocabulary_hash == tokenizer.vocabulary_hash
    assert WordPieceTokenizer.from_vocab_txt(path, lowercase=False).vocabulary_hash != tokenizer.vocabulary_hash
    assert WordPieceTokenizer.from_vocab_txt(path, special_tokens=["[UNK]"]).special_tokens == {"[UNK]": 1}
    assert WordPieceTokenizer.from_vocab_txt(path, cleanup=False).vocabulary_hash == tokenizer.vocabulary_hash
    path.write_bytes(path.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n"))
    assert WordPieceTokenizer.from_vocab_txt(path).vocabulary_hash == tokenizer.vocabulary_hash
    with pytest.raises(UserError, match=r"token 'a.nb' has a line break, which vocab.txt cannot hold; use save"):
        WordPieceTokenizer(["[UNK]", "a\nb"], ["[UNK]"]).save_vocab_txt(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[UNK]\na\nb\na\n", "line 4 is 'a', as is line 2; every token must differ"),
        (b"[UNK]\na\n\nb\n", "line 3 is empty; every line must hold a token"),
        (b"[UNK]\na\n\n", "line 3 is empty"),
        (b"[PAD]\na\n", r"the vocabulary has no '\[UNK\]'"),
        (b"", r"the vocabulary has no '\[UNK\]'"),
        (b"[UNK]\n\xff\xfe\n", "is not UTF-8 text"),
        (None, "does not exist"),
    ],
)
def test_vocab_txt_that_is_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        WordPieceTokenizer.from_vocab_txt(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(continuing_subword_prefix="@@"), "continuing_subword_prefix '##', got '@@'"),
        (lambda c: c.update(normalizer=None), "normalizer 'BertNormalizer', got None"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "normalizer 'BertNormalizer', got 'NFC'"),
        (
            lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
            "pre-tokenizer 'BertPreTokenizer', got 'Whitespace'",
        ),
        (lambda c: c["decoder"].update(prefix="@"), "with decoder"),
        (lambda c: c["model"]["vocab"].update(dog=99), "the ids of the vocabulary must be 0 to 21, but none is 11"),
        (lambda c: c["model"]["vocab"].update(dog=1.5), "the id of 'dog' in the vocabulary, 1.5, is no whole number"),
        (lambda c: c["model"]["vocab"].update(dog=10), "the id of 'dog' in the vocabulary, 10, is that of 'the' too"),
        (
            lambda c: c["model"]["vocab"].update({"[CLS]": 11}),
            r"added token '\[CLS\]' has the id 2, and 11 in the vocab",
        ),
        (lambda c: c["model"].update(unk_token="<unk>"), "the vocabulary has no '<unk>'"),
        (
            lambda c: c["model"].update(max_input_chars_per_word=0),
            "max_input_chars_per_word must be a whole number of at",
        ),
        (lambda c: c["normalizer"].update(lowercase=None), "lowercase must be true or false, got None"),
        (lambda c: c["added_tokens"][0].update(rstrip=True), "is matched by rules"),
        (lambda c: c["added_tokens"][0].update(normalized=True), "is matched by rules .normalized. that"),
        (lambda c: c["model"].pop("vocab"), "is damaged or not what it claims to be .KeyError"),
    ],
)
def test_other_projects_files_that_are_refused(change, message, tmp_path):
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["model"]["tinyllm"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(tmp_path).vocabulary_hash == TOKENIZER.vocabulary_hash
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        WordPieceTokenizer.from_huggingface(path)
    assert str(path) in str(caught.value)


def test_mistakes_with_vocabularies():
    for vocabulary, message in (
        (["[UNK]", "a", "a"], "entry 2 of the vocabulary is 'a', as is entry 1"),
        (["[UNK]", ""], "entry 1 of the vocabulary is empty"),
        (["[UNK]", 7], "expected a text"),
        ([], "the vocabulary has no"),
    ):
        with pytest.raises(UserError, match=message):
            WordPieceTokenizer(vocabulary, ["[UNK]"])
    with pytest.raises(UserError, match=r"has no '\[PAD\]'; add it, or name another"):
        WordPieceTokenizer(["[UNK]"])
    with pytest.raises(UserError, match=r"token id 22 is not in .*of size 22"):
        TOKENIZER.decode([22])
    with pytest.raises(UserError, match="lone surrogate"):
        TOKENIZER.encode("\ud800")


def test_the_hash_covers_what_decides_ids():
    others = [
        TOKENIZER,
        WordPieceTokenizer(VOCABULARY, lowercase=False),
        WordPieceTokenizer(VOCABULARY, strip_accents=False),
        WordPieceTokenizer(VOCABULARY, tokenize_chinese_chars=False),
        WordPieceTokenizer(VOCABULARY, clean_text=False),
        WordPieceTokenizer(VOCABULARY, max_input_chars_per_word=99),
        WordPieceTokenizer(VOCABULARY, unknown="dog"),
        WordPieceTokenizer(VOCABULARY, ["[UNK]"]),
        WordPieceTokenizer([*VOCABULARY, "##x"]),
        WordPieceTokenizer([*VOCABULARY, "x"]),
    ]
    assert len({tokenizer.vocabulary_hash for tokenizer in others}) == len(others)
    for same in (WordPieceTokenizer(VOCABULARY, cleanup=False), WordPieceTokenizer(VOCABULARY, strip_accents=True)):
        assert same.vocabulary_hash == TOKENIZER.vocabulary_hash
