"""The same ids and texts as Hugging Face's `tokenizers` and Google's `sentencepiece`, of one vocabulary."""

import io
import json
import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import SentencePieceBPETokenizer, load_tokenizer
from tinyllm.tokenizers.sentencepiece import DUMMY_PREFIXES

huggingface = pytest.importorskip("tokenizers")

TEXT = (
    "Once upon a time there was a little dog. It didn't like the rain, but it liked the 1234 puddles!\n\n"
    "  Once the sun came out, the dog ran and ran; 'Where's my ball?' asked the dog. Größe, naïve, 日本語, 🙂🙂.\n"
) * 4
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
characters = st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.category(c) != "Cn" and c != "▁")
any_text = st.one_of(
    st.text(characters, max_size=40),
    st.lists(st.sampled_from([*TEXT[:80].split(" "), " ", "  ", "the", "\n", "é", "日", "🙂", "<", "x"])).map("".join),
)


def invented_pieces():
    """Pieces of several letters from TEXT, the more frequent the better, then all its characters."""
    counts = {}
    text = "▁" + TEXT.replace(" ", "▁")
    for length in (2, 3, 4):
        for place in range(len(text) - length + 1):
            piece = text[place : place + length]
            if "▁" not in piece.lstrip("▁"):
                counts[piece] = counts.get(piece, 0) + 1
    best = sorted(counts, key=lambda piece: (-counts[piece], piece))[:300]
    return [*best, *sorted(set(text))]


@cache
def ours(prefix="always", byte_fallback=True):
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    first = 3 + len(pieces)
    pieces = dict(enumerate([*pieces, *invented_pieces()], 3))
    scores = {token: 0.0 if token < first else float(first - token) for token in pieces}
    return SentencePieceBPETokenizer(pieces, scores, special_tokens=SPECIAL, prefix=prefix)


def pair(tokenizer, folder):
    tokenizer.save(folder)
    return tokenizer, huggingface.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(
    scope="module",
    params=[(prefix, fallback) for prefix in DUMMY_PREFIXES for fallback in (True, False)],
    ids=lambda param: f"{param[0]}-{'bytes' if param[1] else 'unknown'}",
)
def peers(request, tmp_path_factory):
    return pair(ours(*request.param), tmp_path_factory.mktemp("sentencepiece"))


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_huggingface_agrees_with_our_file(peers, text):
    mine, theirs = peers
    ids = mine.encode(text)
    assert theirs.encode(text, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == mine.decode(ids)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.one_of(any_text, st.sampled_from(["<s>", "</s>", "the dog", "dogs"])), max_size=6))
def test_huggingface_agrees_on_special_and_added_tokens(tmp_path_factory, parts):
    mine, theirs = with_words(tmp_path_factory.getbasetemp())
    text = "".join(parts)
    assert theirs.encode(text, add_special_tokens=False).ids == mine.encode(text, allowed_special="all")


@cache
def with_words(folder):
    return pair(ours().with_tokens(special_tokens=["<|end|>"], added_tokens=["the dog", "dogs"]), folder / "words")


def test_a_file_that_huggingface_wrote_is_read(peers, tmp_path):
    mine, theirs = peers
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert "tinyllm" not in (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    again = load_tokenizer(tmp_path)
    assert again.prefix == mine.prefix
    for text in (TEXT, "  the 猫dog\n"):
        assert again.encode(text) == mine.encode(text)
    again.save(tmp_path)  # without scores, so that the merges in their order are all there is
    assert load_tokenizer(tmp_path).vocabulary_hash == again.vocabulary_hash


@settings(max_examples=300, deadline=None)
@given(
    merges=st.lists(st.tuples(st.sampled_from("ab▁"), st.sampled_from("ab▁")), min_size=1, max_size=6, unique=True),
    text=st.text("ab ", max_size=20),
)
def test_the_order_of_merges_decides_as_in_huggingface(tmp_path_factory, merges, text):
    """Files may hold merges that no scores would make."""
    letters = {letter: token for token, letter in enumerate(["a", "b", "▁"], 3)}
    made = list(dict.fromkeys(left + right for left, right in merges))
    vocabulary = letters | {piece: token for token, piece in enumerate(made, 6)}
    mine = SentencePieceBPETokenizer(
        {token: piece for piece, token in vocabulary.items()},
        merges=[(vocabulary[left], vocabulary[right]) for left, right in merges],
        special_tokens=SPECIAL,
    )
    mine, theirs = pair(mine, tmp_path_factory.getbasetemp() / "merges")
    assert theirs.encode(text, add_special_tokens=False).ids == mine.encode(text)


def test_transformers_loads_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    mine = ours().with_tokens()
    mine.config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": "{{ 'x' }}"}
    mine.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs.encode("the dog 猫", add_special_tokens=False) == mine.encode("the dog 猫")
    assert (theirs.bos_token_id, theirs.eos_token, theirs.chat_template) == (1, "</s>", "{{ 'x' }}")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again = load_tokenizer(tmp_path / "theirs")
    assert {key: again.config[key] for key in mine.config} == mine.config
    assert again.encode(TEXT) == mine.encode(TEXT)


# Google's own


@cache
def google():
    """(a SentencePiece model trained on TEXT, ours of the same pieces and scores)."""
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = theirs.get_piece_size()
    special = {theirs.id_to_piece(token): token for token in range(3)}
    pieces = {token: theirs.id_to_piece(token) for token in range(3, count)}
    scores = {token: theirs.get_score(token) for token in pieces}
    return theirs, SentencePieceBPETokenizer(pieces, scores, special_tokens=special)


@settings(max_examples=1000, deadline=None)
@given(text=any_text)
def test_sentencepiece_agrees(text):
    theirs, mine = google()
    ids = mine.encode(text)
    assert theirs.encode(text) == ids
    assert theirs.decode(ids) == mine.decode(ids) == text


def test_a_sentencepiece_vocabulary_as_llama2c_file(tmp_path):
    theirs, mine = google()
    mine.to_llama2c(tmp_path / "tokenizer.bin")
    again = SentencePieceBPETokenizer.from_llama2c(tmp_path / "tokenizer.bin")
    assert again.vocabulary_hash == mine.vocabulary_hash
    assert json.loads(json.dumps(again.encode(TEXT))) == theirs.encode(TEXT)
