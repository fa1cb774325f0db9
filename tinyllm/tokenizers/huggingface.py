"""Hugging Face's tokenizer.json: what ours say in it, and what is understood of others'.

Only byte-level BPE is understood, as GPT-2 and its descendants use it. What a file says about truncation, padding and
templates around a text does not concern encoding and is left aside. Our own mark (format_version, kind,
vocabulary_hash) lies inside "model", the one object of the format in which the `tokenizers` library accepts it.
"""

from tinyllm.errors import UserError
from tinyllm.tokenizers.byte_symbols import spell, unspell
from tinyllm.tokenizers.patterns import PATTERNS

FORMAT_VERSION = 1
ANYTHING = r"[\s\S]+"  # the pattern of a file that does not split its text


def sign(content, kind, vocabulary_hash):
    """`content` of a tokenizer.json with our mark."""
    mark = {"format_version": FORMAT_VERSION, "kind": kind, "vocabulary_hash": vocabulary_hash}
    return content | {"model": content["model"] | {"tinyllm": mark}}


def signature(content, path):
    """(kind, vocabulary hash) of a tokenizer.json; ("bpe", None) for another project's, which has no mark of ours."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise UserError(f"{path} is not a tokenizer.json: it has no model; was it damaged, or is it another file?")
    if "tinyllm" not in model:
        return "bpe", None
    mark = model["tinyllm"] if isinstance(model["tinyllm"], dict) else {}
    if mark.get("format_version") != FORMAT_VERSION:
        version = mark.get("format_version")
        raise UserError(f"{path} has format_version {version!r}, this tinyllm reads {FORMAT_VERSION}; update tinyllm")
    return str(mark.get("kind")), str(mark.get("vocabulary_hash"))


def parsed(parse, content, path):
    """`parse(content)`, where whatever a damaged content raises becomes one UserError that names the file."""
    try:
        return parse(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is damaged or not what it claims to be ({problem}); write or fetch it again") from None


def bpe_json(tokens, special_tokens, merges, pattern):
    """tokenizer.json of a byte-level BPE.

    tokens: dict id -> bytes; special_tokens: dict name -> id; merges: list of id pairs; pattern: None not to split.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pre_tokenizer = byte_level
    if pattern is not None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {spell(content): token for token, content in tokens.items()} | special_tokens,
        # As text and not as a pair: that is what older versions of `tokenizers` read, and the new ones too.
        "merges": [f"{spell(tokens[left])} {spell(tokens[right])}" for left, right in merges],
    }
    return tokenizer_json(model, special_tokens, pre_tokenizer, decoder=byte_level)


def tokenizer_json(model, special_tokens, pre_tokenizer, decoder):
    """The frame of every tokenizer.json around its model."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": name, **flags} for name, token in special_tokens.items()],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def special_tokens_of(content):
    """Dict name -> id of the added tokens of a tokenizer.json."""
    added = content.get("added_tokens") or []
    for token in added:
        if any(token.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
            raise UserError(f"added token {token['content']!r} is matched by rules (lstrip, …) that tinyllm lacks")
    return {token["content"]: token["id"] for token in added}


def bpe_from_json(content):
    """(tokens, merges, pattern, special tokens) of a byte-level BPE, as `BPETokenizer` takes them."""
    model = content["model"]
    # Old files name no type; the merges tell.
    expect(model.get("type", "BPE" if "merges" in model else None), ["BPE"], "model type")
    expect(content.get("normalizer"), [None], "normalizer")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        expect(model.get(option), [None, "", 0, False], option)
    special_tokens = special_tokens_of(content)
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    tokens, merges = from_spellings(model["vocab"], merges, special_tokens)
    return tokens, merges, pattern_of(content["pre_tokenizer"]), special_tokens


def expect(value, accepted, what):
    """UserError unless the tokenizer.json says one of the `accepted` values."""
    if value not in accepted:
        raise UserError(f"expected byte-level BPE with {what} {accepted[0]!r}, got {value!r}, which tinyllm lacks")


def pattern_of(pre_tokenizer):
    """The split pattern of a byte-level pre-tokenizer, alone or after one Split."""
    pre_tokenizer = pre_tokenizer or {"type": None}
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    expect([step["type"] for step in steps], [["Split", "ByteLevel"], ["ByteLevel"]], "pre-tokenizers")
    byte_level = steps[-1]
    expect(byte_level["add_prefix_space"], [False], "add_prefix_space")
    uses_gpt2 = byte_level.get("use_regex", True)
    if len(steps) == 1:
        return PATTERNS["gpt2"] if uses_gpt2 else ANYTHING
    split = steps[0]
    expect(uses_gpt2, [False], "use_regex (after a Split)")
    expect((split["behavior"], split["invert"]), [("Isolated", False)], "behavior and invert of Split")
    return split["pattern"]["Regex"]


def from_spellings(vocabulary, merges, special_tokens):
    """Tokens (dict id -> bytes) and merges (list of id pairs) from GPT-2's printable spellings.

    vocabulary: dict spelling -> id, with or without the special tokens; merges: list of pairs of spellings.
    """
    ordinary = {symbols: token for symbols, token in vocabulary.items() if symbols not in special_tokens}
    tokens = {token: unspell(symbols) for symbols, token in ordinary.items()}
    if len(tokens) != len(ordinary):
        raise UserError("an id occurs twice in the vocabulary")
    return tokens, [(vocabulary[left], vocabulary[right]) for left, right in merges]
