"""What our files mean to Hugging Face's libraries and to tiktoken: options, added tokens, chats, disallowed names."""

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.tokenizers import BPETokenizer, load_tokenizer
from tinyllm.tokenizers.byte_symbols import BYTE_ORDER
from tinyllm.tokenizers.patterns import PATTERNS

huggingface = pytest.importorskip("tokenizers")
tiktoken = pytest.importorskip("tiktoken")

TEXT = (
    "Once upon a time there was a little dog. It didn't like the rain, but it liked the 1234 puddles!\n\n"
    "  Once the sun came out, the dog ran and ran; 'Where's my ball?' asked the dog. Größe, naïve, 日本語, 🙂🙂.\n"
) * 3
CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPECIAL = ["<|endoftext|>", "<|end|>", "<|end|><|end|>", *CHATML, *LLAMA3]
WORDS = ["little", "little dog", "<|end", "  "]
known_characters = st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.category(c) != "Cn")
any_text = st.one_of(
    st.text(known_characters, max_size=40),
    st.text(st.sampled_from([*" \n\t'sStTm19a.,é日e\u0301\u0327\u00a0ﬁ한ᄒ\u1161ÅÅ🙂"]), max_size=40),
    st.lists(st.sampled_from([*SPECIAL[:3], *WORDS, "<|end", "|>", " ", "a", "the dog"]), max_size=10).map("".join),
)


@cache
def trained(pattern="gpt2"):
    return BPETokenizer.train([TEXT], vocab_size=350, pattern=pattern, special_tokens=SPECIAL)


def variant(**options):
    base = trained()
    return BPETokenizer(base._ordinary, base.merges, "gpt2", base.special_tokens, **options)


def whole_pieces():
    """A tokenizer with words that no merges lead to, as Llama 3's has them."""
    base = trained()
    words = [b" there", b"Once", b" 1234", b" puddles", b"123", " Größe".encode()]
    words = [word for word in words if word not in base._ordinary.values()]
    assert len(words) >= 3
    tokens = base._ordinary | dict(enumerate(words, base.vocab_size))
    return BPETokenizer(tokens, base.merges, "gpt2", base.special_tokens, ignore_merges=True)


@pytest.fixture(
    scope="module",
    params=[
        lambda: variant(normalizer="NFC"),
        lambda: variant(normalizer="NFD"),
        lambda: variant(normalizer="NFKC"),
        lambda: variant(normalizer="NFKD"),
        lambda: variant(add_prefix_space=True),
        lambda: variant(normalizer="NFC", add_prefix_space=True),
        whole_pieces,
        lambda: trained().with_tokens(added_tokens=WORDS),
        lambda: trained("gpt4").with_tokens(["<|more|>"], WORDS),
        lambda: variant(add_prefix_space=True).with_tokens(added_tokens=WORDS),
    ],
    ids=["NFC", "NFD", "NFKC", "NFKD", "prefix", "NFC prefix", "whole", "words", "gpt4 words", "prefix words"],
)
def peers(request, tmp_path_factory):
    ours = request.param()
    folder = tmp_path_factory.mktemp("peers")
    ours.save(folder)
    return ours, huggingface.Tokenizer.from_file(str(folder / "tokenizer.json"))


@settings(max_examples=250, deadline=None)
@given(text=any_text)
def test_huggingface_agrees_with_our_file(peers, text):
    ours, theirs = peers
    ids = ours.encode(text, allowed_special="all")
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)
    assert theirs.get_vocab_size() == len(ours._tokens)


def test_a_file_that_huggingface_wrote_is_read(peers, tmp_path):
    ours, theirs = peers
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert "tinyllm" not in (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert BPETokenizer.from_huggingface(tmp_path / "tokenizer.json").vocabulary_hash == ours.vocabulary_hash


def test_flags_of_added_tokens_that_would_change_ids_are_refused(tmp_path):
    trained().save(tmp_path)
    for flag in ("lstrip", "rstrip", "single_word"):
        theirs = huggingface.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        theirs.add_tokens([huggingface.AddedToken("zzz", **{flag: True})])
        theirs.save(str(tmp_path / "theirs.json"))
        with pytest.raises(ValueError, match=f"added token 'zzz' is matched by rules .{flag}. that tinyllm lacks"):
            BPETokenizer.from_huggingface(tmp_path / "theirs.json")


def test_tiktoken_reads_our_rank_file(tmp_path):
    from tiktoken import load

    ours = trained("gpt4")
    ours.to_tiktoken(tmp_path / "ours.tiktoken")
    ranks = load.load_tiktoken_bpe(str(tmp_path / "ours.tiktoken"))
    theirs = tiktoken.Encoding("x", pat_str=PATTERNS["gpt4"], mergeable_ranks=ranks, special_tokens=ours.special_tokens)
    assert theirs.encode(TEXT) == ours.encode(TEXT)


# No name that contains another: which of the two tiktoken finds first is an accident of its hash table.
NAMES = [SPECIAL[0], SPECIAL[1], CHATML[0]]
names = st.lists(st.sampled_from(NAMES), unique=True)


@settings(max_examples=400, deadline=None)
@given(
    parts=st.lists(st.sampled_from([*NAMES, "<|end", "a", "|>"]), max_size=6),
    allowed=st.one_of(st.just("all"), names),
    disallowed=st.one_of(st.just("all"), names),
)
def test_tiktoken_allows_and_disallows_the_same(parts, allowed, disallowed):
    ours, text = trained(), "".join(parts)
    ranks = {ours.token_bytes(token): token for token in ours._ordinary}
    special = {name: ours.special_tokens[name] for name in NAMES}
    ours = BPETokenizer(ours._ordinary, ours.merges, ours.pattern, special)
    theirs = tiktoken.Encoding("x", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=special)
    sets = [names if names == "all" else set(names) for names in (allowed, disallowed)]
    try:
        expected = theirs.encode(text, allowed_special=sets[0], disallowed_special=sets[1])
    except ValueError:
        with pytest.raises(ValueError, match="is disallowed here"):
            ours.encode(text, allowed_special=allowed, disallowed_special=disallowed)
        return
    assert ours.encode(text, allowed_special=allowed, disallowed_special=disallowed) == expected


# Chats

JINJA = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + (m['content'] | trim) + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
}


@cache
def chat_peer(folder, pattern, template):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("jinja2")
    ours = trained(pattern).with_tokens()
    ours.config["chat_template"] = JINJA[template]
    ours.save(folder / pattern / template)
    return ours, transformers.AutoTokenizer.from_pretrained(str(folder / pattern / template))


# White space at its beginning would join the line break before a content, and control tokens are harmful.
harmless = st.text(known_characters, max_size=40).filter(lambda text: not text[:1].isspace() and "<|" not in text)


# Llama 3 cuts text as GPT-4 does; GPT-2's pattern would cut its two line breaks otherwise before a content.
@pytest.mark.parametrize(("pattern", "template"), [("gpt2", "chatml"), ("gpt4", "chatml"), ("gpt4", "llama3")])
@settings(max_examples=150, deadline=None)
@given(
    # Nothing at all is no chat to transformers.
    messages=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), harmless), min_size=1, max_size=5),
    prompt=st.booleans(),
)
def test_transformers_makes_the_same_ids_of_a_chat(tmp_path_factory, pattern, template, messages, prompt):
    ours, theirs = chat_peer(tmp_path_factory.getbasetemp(), pattern, template)
    messages = [{"role": role, "content": content} for role, content in messages]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=True, return_dict=False)
    assert ours.encode_chat(messages, template, add_generation_prompt=prompt) == expected


def test_transformers_keeps_what_we_keep(tmp_path):
    ours, theirs = chat_peer(tmp_path, "gpt4", "chatml")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    again = load_tokenizer(tmp_path / "theirs")
    assert again.vocabulary_hash == ours.vocabulary_hash
    assert again.config["chat_template"] == JINJA["chatml"]
    assert len(BYTE_ORDER) == 256
