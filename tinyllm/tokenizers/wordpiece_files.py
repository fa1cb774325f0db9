"""WordPiece in files: BERT's vocab.txt, and Hugging Face's tokenizer.json."""

from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.tokenizers.huggingface import named_tokens_of, tokenizer_json
from tinyllm.tokenizers.wordpiece_training import CONTINUATION


def read_vocab_txt(path):
    """The tokens of a vocab.txt, a list of str; line n holds id n - 1.

    Errors: UserError naming the line that is empty, or says again what an earlier one says.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); is it another file, or damaged?") from None
    if lines[-1] == "":
        lines.pop()
    first = {}
    for number, name in enumerate(lines, 1):
        if not name:
            raise UserError(
                f"{path}, line {number} is empty; every line must hold a token, take it out or fetch it again"
            )
        if name in first:
            raise UserError(f"{path}, line {number} is {name!r}, as is line {first[name]}; every token must differ")
        first[name] = number
    return lines


def wordpiece_json(tokenizer):
    """The content of tokenizer.json for a WordPieceTokenizer."""
    normalization = tokenizer.normalization
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": normalization.clean_text,
        "handle_chinese_chars": normalization.tokenize_chinese_chars,
        "strip_accents": normalization.strip_accents,
        "lowercase": normalization.lowercase,
    }
    model = {
        "type": "WordPiece",
        "unk_token": tokenizer.unknown,
        "continuing_subword_prefix": CONTINUATION,
        "max_input_chars_per_word": tokenizer.max_input_chars_per_word,
        "vocab": {name: token for token, name in enumerate(tokenizer.vocabulary)},
    }
    decoder = {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": tokenizer.cleanup}
    content = tokenizer_json(model, tokenizer.special_tokens, {"type": "BertPreTokenizer"}, decoder)
    return content | {"normalizer": normalizer}


def wordpiece_from_json(content):
    """The arguments of WordPieceTokenizer, as a dict, that a tokenizer.json describes."""
    model, normalizer = content["model"], content["normalizer"] or {}
    expect(model.get("type", "WordPiece"), "WordPiece", "model type")
    expect(model["continuing_subword_prefix"], CONTINUATION, "continuing_subword_prefix")
    expect(normalizer.get("type"), "BertNormalizer", "normalizer")
    expect((content["pre_tokenizer"] or {}).get("type"), "BertPreTokenizer", "pre-tokenizer")
    decoder = content.get("decoder") or {"type": "WordPiece", "prefix": CONTINUATION}
    expect((decoder["type"], decoder["prefix"]), ("WordPiece", CONTINUATION), "decoder")
    special_tokens, added_tokens = named_tokens_of(content)
    return {
        "vocabulary": in_id_order(model["vocab"], special_tokens | added_tokens),
        "special_tokens": list(special_tokens),
        "added_tokens": list(added_tokens),
        "lowercase": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        "clean_text": normalizer["clean_text"],
        "unknown": model["unk_token"],
        "max_input_chars_per_word": model["max_input_chars_per_word"],
        "cleanup": decoder.get("cleanup", True),
    }


def expect(value, accepted, what):
    """UserError unless the tokenizer.json says what is accepted."""
    if value != accepted:
        raise UserError(f"expected BERT's WordPiece with {what} {accepted!r}, got {value!r}, which tinyllm lacks")


def in_id_order(vocabulary, named):
    """The tokens as a list whose places are their ids. vocabulary, named: dict token -> id."""
    for name, token in named.items():
        if vocabulary.get(name, token) != token:
            raise UserError(f"added token {name!r} has the id {token}, and {vocabulary[name]} in the vocabulary")
    names = {}
    for name, token in (vocabulary | named).items():
        if type(token) is not int or token in names:
            problem = f"that of {names[token]!r} too" if type(token) is int else "no whole number"
            raise UserError(f"the id of {name!r} in the vocabulary, {token!r}, is {problem}")
        names[token] = name
    gap = next((token for token in range(len(names)) if token not in names), None)
    if gap is not None:
        raise UserError(f"the ids of the vocabulary must be 0 to {len(names) - 1}, but none is {gap}")
    return [names[token] for token in range(len(names))]
