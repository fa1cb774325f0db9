"""Chats as token ids: a template says which control tokens stand where, and contents never become one.

A template is data, not a program. Control tokens are put as ids, everything else is encoded as ordinary text, every
content by itself. So what a message says cannot end it, or begin another in somebody else's name.
"""

from dataclasses import dataclass

from tinyllm.errors import UserError, did_you_mean
from tinyllm.tokenizers.texts import check_text

ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


@dataclass(frozen=True)
class ChatTemplate:
    """begin + for each message: header + content + end. Each is a tuple of parts, and each part the name of a control
    token if it is among control_tokens, else ordinary text; "{role}" in a part stands for the message's role. The first
    part of end is the token with which the assistant says that it is done.
    """

    control_tokens: tuple
    header: tuple
    end: tuple
    begin: tuple = ()
    strips_content: bool = False  # white space around a content is left out


TEMPLATES = {
    # Ours: a role is one token, so no text stands between control token and content.
    "tinyllm": ChatTemplate(
        control_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), header=("<|{role}|>",), end=("<|end|>",)
    ),
    # OpenAI's ChatML, as Qwen and many others use it.
    "chatml": ChatTemplate(
        control_tokens=("<|im_start|>", "<|im_end|>"), header=("<|im_start|>", "{role}\n"), end=("<|im_end|>", "\n")
    ),
    # Grattafiori et al. 2024, "The Llama 3 Herd of Models"; Meta's published prompt format.
    "llama3": ChatTemplate(
        control_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        begin=("<|begin_of_text|>",),
        header=("<|start_header_id|>", "{role}", "<|end_header_id|>", "\n\n"),
        end=("<|eot_id|>",),
        strips_content=True,
    ),
}


def chat_parts(tokenizer, messages, template="tinyllm", *, add_generation_prompt=False):
    """A chat as a list of (ids, is_assistant): is_assistant marks what the assistant says, and the token that ends it.

    That is what a model learns from a chat, and what it writes when it continues one. Arguments and errors: as in
    `Tokenizer.encode_chat`.
    """
    template = find_template(template)
    messages = [checked_message(message, number) for number, message in enumerate(as_list(messages))]
    writer = ChatWriter(tokenizer, template)
    parts = [(writer.template_ids(template.begin), False)]
    for role, content in messages:
        content = content.strip() if template.strips_content else content
        said = role == ASSISTANT
        parts.append((writer.template_ids(template.header, role), False))
        parts.append((writer.content_ids(content) + writer.template_ids(template.end[:1], role), said))
        parts.append((writer.template_ids(template.end[1:], role), False))
    if add_generation_prompt:
        parts.append((writer.template_ids(template.header, ASSISTANT), False))
    return [(ids, said) for ids, said in parts if ids]


class ChatWriter:
    """Encodes the parts of a chat one after the other, and remembers what came before."""

    def __init__(self, tokenizer, template):
        self._tokenizer = tokenizer
        self._controls = control_ids(template, tokenizer)
        # Words added to the vocabulary are found in contents, but not if the template commands with them.
        self._words = set(tokenizer.added_tokens) - set(self._controls)
        self._before = None

    def template_ids(self, parts, role=""):
        """The ids of parts of the template: control tokens and text."""
        ids = []
        for part in parts:
            part = part.replace("{role}", role)
            ids += self._remember([self._controls[part]]) if part in self._controls else self.content_ids(part)
        return ids

    def content_ids(self, text):
        """The ids of a text in which nothing is a control token."""
        return self._remember(self._tokenizer._encode_named(text, self._words, self._before))

    def _remember(self, ids):
        self._before = ids[-1] if ids else self._before
        return ids


def find_template(template):
    """The ChatTemplate meant by a name or by itself."""
    if isinstance(template, ChatTemplate):
        return template
    if isinstance(template, str) and template in TEMPLATES:
        return TEMPLATES[template]
    known = ", ".join(TEMPLATES)
    if isinstance(template, str) and ("{{" in template or "{%" in template):
        raise UserError(f"templates in Jinja are kept in a tokenizer's config but not run here; choose one of {known}")
    raise UserError(
        f"template must be a ChatTemplate or one of {known}; got {template!r}{did_you_mean(template, TEMPLATES)}"
    )


def control_ids(template, tokenizer):
    """Dict name -> id of the template's control tokens; UserError naming those that the tokenizer lacks."""
    known = tokenizer.special_tokens | tokenizer.added_tokens
    missing = [name for name in template.control_tokens if name not in known]
    if missing:
        raise UserError(
            f"the tokenizer lacks the template's tokens {', '.join(missing)}; add them with "
            f"tokenizer.with_tokens({missing}) (the model needs an embedding for each), train with them as "
            "special_tokens, or choose the template that the model was trained with"
        )
    return {name: known[name] for name in template.control_tokens}


def as_list(messages):
    """The messages of a chat as a list; UserError where they are none."""
    if isinstance(messages, (str, bytes, dict)) or not hasattr(messages, "__iter__"):
        raise UserError(f'messages must be a list of {{"role": ..., "content": ...}}, got {type(messages).__name__}')
    return list(messages)


def checked_message(message, number):
    """(role, content) of a message; UserError where it is none, naming its number, counted from 0."""
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        got = list(message) if isinstance(message, dict) else type(message).__name__
        raise UserError(f'message {number} must have the keys "role" and "content" and no others; got {got}')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise UserError(
            f"message {number}: role must be one of {', '.join(ROLES)}; got {role!r}{did_you_mean(role, ROLES)}"
        )
    try:
        check_text(content)
    except UserError as error:
        raise UserError(f"message {number}: its content: {error}") from None
    return role, content
