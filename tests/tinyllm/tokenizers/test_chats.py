"""A chat becomes the ids that its template says, and what a message says never becomes a control token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, SentencePieceBPETokenizer
from tinyllm.tokenizers.chats import TEMPLATES, ChatTemplate, chat_parts

NAMES = [name for template in TEMPLATES.values() for name in template.control_tokens]
TEXT = "system user assistant\n hello there, how are you?" + "".join(NAMES)
ALL = [
    BPETokenizer.train([TEXT], vocab_size=270 + len(NAMES), special_tokens=NAMES),
    ByteTokenizer(["<|endoftext|>", *NAMES]),
    CharacterTokenizer.train([TEXT + "xdg"], NAMES),
    SentencePieceBPETokenizer(
        dict(enumerate([f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "h", "e", "▁h", "▁he"], 3)),
        dict(enumerate([-float(rank) for rank in range(261)], 3)),
        special_tokens={name: token for token, name in enumerate(["<unk>", "<s>", "</s>"])},
    ).with_tokens(NAMES),
    # As some files have it: the control tokens are not marked as special.
    ByteTokenizer().with_tokens(added_tokens=[*NAMES, "hello", "the"]),
]
each = pytest.mark.parametrize("tokenizer", ALL, ids=["bpe", "byte", "character", "sentencepiece", "added"])
templates = pytest.mark.parametrize("template", TEMPLATES)
CHAT = [
    {"role": "system", "content": "you are there"},
    {"role": "user", "content": "hello, how are you?"},
    {"role": "assistant", "content": "hello there"},
]
SHOWN = {
    "tinyllm": "<|system|>you are there<|end|><|user|>hello, how are you?<|end|><|assistant|>hello there<|end|>",
    "chatml": "<|im_start|>system\nyou are there<|im_end|>\n<|im_start|>user\nhello, how are you?<|im_end|>\n"
    "<|im_start|>assistant\nhello there<|im_end|>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nyou are there<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nhello, how are you?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nhello there<|eot_id|>",
}
PROMPT = {
    "tinyllm": "<|assistant|>",
    "chatml": "<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


def control_ids(tokenizer, template):
    named = tokenizer.special_tokens | tokenizer.added_tokens
    return {named[name] for name in TEMPLATES[template].control_tokens}


@each
@templates
def test_a_chat_reads_as_its_template_says(tokenizer, template):
    ids = tokenizer.encode_chat(CHAT, template)
    assert tokenizer.decode(ids) == SHOWN[template]
    assert tokenizer.encode_chat(CHAT, template, add_generation_prompt=True)[: len(ids)] == ids
    asked = tokenizer.encode_chat(CHAT[:2], template, add_generation_prompt=True)
    assert asked == ids[: len(asked)]  # the model has learned from what it is asked with
    assert tokenizer.decode(asked).endswith(PROMPT[template])
    # Each control token of the text is one id: written as text, the names would be many.
    assert sum(token in control_ids(tokenizer, template) for token in ids) == SHOWN[template].count("<|")


@each
@templates
def test_what_the_assistant_says_is_marked(tokenizer, template):
    parts = chat_parts(tokenizer, [*CHAT, *CHAT[1:]], template, add_generation_prompt=True)
    assert [token for ids, _ in parts for token in ids] == tokenizer.encode_chat(
        [*CHAT, *CHAT[1:]], template, add_generation_prompt=True
    )
    said = [tokenizer.decode(ids, continuing=True) for ids, is_assistant in parts if is_assistant]
    end = TEMPLATES[template].end[0]
    assert [text.removeprefix(" ") for text in said] == [f"hello there{end}"] * 2


contents = st.one_of(
    st.lists(st.sampled_from([*NAMES, "<|", "|>", "user\n", "hello", " ", "\n", "<|endoftext|>"]), max_size=8).map(
        "".join
    ),
    st.sampled_from(NAMES),
    st.text("<|>aimstrendu_", max_size=30),
)


@each
@templates
@settings(max_examples=100, deadline=None)
@given(said=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), contents), max_size=4))
def test_no_content_becomes_a_control_token(tokenizer, template, said):
    messages = [{"role": role, "content": content} for role, content in said]
    harmless = [{"role": role, "content": "hello"} for role, _ in said]
    controls = control_ids(tokenizer, template)
    ids = tokenizer.encode_chat(messages, template)
    expected = tokenizer.encode_chat(harmless, template)
    # The control tokens are those of the same chat with nothing in it, in the same order.
    assert [token for token in ids if token in controls] == [token for token in expected if token in controls]
    strip = str.strip if TEMPLATES[template].strips_content else str
    shown = tokenizer.decode(ids)
    for _, content in said:  # and nothing of the contents is lost
        assert strip(content) in shown
        shown = shown.split(strip(content), 1)[1] if strip(content) else shown


def test_a_template_of_ones_own():
    own = ChatTemplate(control_tokens=("[A]", "[/A]"), begin=("[A]",), header=("{role}: ",), end=("[/A]", "\n"))
    tokenizer = ByteTokenizer(["[A]", "[/A]"])
    ids = tokenizer.encode_chat([{"role": "user", "content": "[/A]"}], own)
    assert tokenizer.decode(ids) == "[A]user: [/A][/A]\n"
    assert [token for token in ids if token > 255] == [256, 257]


def test_a_space_is_put_in_front_of_a_stretch_and_not_of_each_content():
    tokens, merges = ALL[0]._ordinary, ALL[0].merges
    spaced = BPETokenizer(tokens, merges, "gpt2", ALL[0].special_tokens, add_prefix_space=True)
    ids = spaced.encode_chat([{"role": "user", "content": "hello"}], "chatml")
    assert spaced.decode(ids) == "<|im_start|> user\nhello<|im_end|> \n"


def test_words_that_were_added_are_found_in_contents():
    ids = ALL[4].encode_chat([{"role": "user", "content": "oh hello<|user|>"}])
    named = ALL[4].added_tokens
    assert ids == [named["<|user|>"], *b"oh ", named["hello"], *b"<|user|>", named["<|end|>"]]


@pytest.mark.parametrize(
    ("messages", "template", "message"),
    [
        ([{"role": "tool", "content": "x"}], "tinyllm", "message 0: role must be one of system, user, .*got 'tool'"),
        ([*CHAT, {"role": "uesr", "content": "x"}], "tinyllm", "message 3: .*did you mean 'user'"),
        ([{"role": ["user"], "content": "x"}], "tinyllm", "message 0: role must be one of"),
        ([{"role": "user", "content": None}], "tinyllm", "message 0: its content: expected a text .*got NoneType"),
        ([{"role": "user", "content": b"x"}], "tinyllm", "its content: expected a text .*got bytes"),
        ([{"role": "user", "content": "\ud800"}], "tinyllm", "its content: the text has a lone surrogate"),
        ([{"role": "user"}], "tinyllm", r"message 0 must have the keys \"role\" and \"content\".*got \['role'\]"),
        ([{"role": "user", "content": "x", "name": "y"}], "tinyllm", "and no others; got .*'name'"),
        (["hello"], "tinyllm", "message 0 must have the keys .* got str"),
        ("hello", "tinyllm", "messages must be a list .* got str"),
        ({"role": "user", "content": "x"}, "tinyllm", "messages must be a list .* got dict"),
        (None, "tinyllm", "messages must be a list .* got NoneType"),
        (CHAT, "chat-ml", "one of tinyllm, chatml, llama3; got 'chat-ml'; did you mean 'chatml'"),
        (CHAT, "{{ bos_token }}{% for m in messages %}", "templates in Jinja are kept .* but not run here; choose one"),
        (CHAT, None, "template must be a ChatTemplate or one of"),
    ],
)
def test_mistakes(messages, template, message):
    with pytest.raises(UserError, match=message) as caught:
        ALL[0].encode_chat(messages, template)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_tokens_is_told_how_to_get_them():
    tokenizer = ByteTokenizer().with_tokens(["<|im_end|>"])
    with pytest.raises(
        UserError, match=r"lacks the template's tokens <\|im_start\|>; add them with tokenizer.with_tokens"
    ):
        tokenizer.encode_chat(CHAT, "chatml")
    assert tokenizer.with_tokens(["<|im_start|>"]).encode_chat([], "chatml") == []
