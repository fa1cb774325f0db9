"""tokenizer_config.json beside a tokenizer.json: the names of tokens that have a task, and the chat template.

Both are kept and written back; nothing is done with them here. A chat template is a program in Jinja's language, which
this part of the project does not run (`tinyllm.tokenizers.chats` has templates that are data).
"""

import json
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import read_json, read_text, write_json
from tinyllm.tokenizers.texts import check_text

FILE_NAME = "tokenizer_config.json"
TEMPLATE_FILE_NAME = "chat_template.jinja"  # where newer versions of transformers keep the template
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_config(folder):
    """What a folder's tokenizer_config.json says of NAMES and "chat_template", a dict; {} without the file."""
    path, template = Path(folder) / FILE_NAME, Path(folder) / TEMPLATE_FILE_NAME
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold an object, got a {type(content).__name__}; fetch it again")
    config = {}
    for key in NAMES:
        value = content.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        if value is not None and not isinstance(name, str):
            raise UserError(f"{path}: {key} must be the name of a token, got {value!r}; correct it")
        if name is not None:
            config[key] = name
    chat_template = read_text(template) if template.exists() else content.get("chat_template")
    # A text, or a list of {"name": ..., "template": ...} where a model has several.
    if not isinstance(chat_template, (str, list, type(None))):
        raise UserError(f"{path}: chat_template must be a text or a list, got {chat_template!r}; correct it")
    config |= {} if chat_template is None else {"chat_template": chat_template}
    try:
        check_text(json.dumps(config, ensure_ascii=False))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def write_config(folder, config):
    """Write a tokenizer_config.json that transformers' AutoTokenizer reads, if there is something to keep.

    An older one in the folder is written over in any case, and its chat_template.jinja removed: they belong to another
    tokenizer.
    """
    path, template = Path(folder) / FILE_NAME, Path(folder) / TEMPLATE_FILE_NAME
    if config or path.exists():
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        write_json(path, named | config)
    template.unlink(missing_ok=True)
