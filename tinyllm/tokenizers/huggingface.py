"""Hugging Face's tokenizer.json: what ours say in it, and what is understood of others'.

Byte-level BPE is understood as GPT-2 and its descendants use it; Llama 2's kind is in sentencepiece_json.py, BERT's
WordPiece in wordpiece_files.py. What a file says about truncation, padding and templates around a text does not concern
encoding and is left aside. Our own mark (format_version, kind, vocabulary_hash) lies inside "model", the one object of
the format in which the `tokenizers` library accepts it.
"""

from tinyllm.errors import UserError
from tinyllm.tokenizers.byte_symbols import spell, unspell
from tinyllm.tokenizers.patterns import PATTERNS
from tinyllm.tokenizers.special_tokens import check_id

FORMAT_VERSION = 1
ANYTHING = r"[\s\S]+"  # the pattern of a file that does not split its text
NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")  # Unicode's; the normalizers that are here


def sign(content, kind, vocabulary_hash):
    """`content` of a tokenizer.json with our mark."""
    mark = {"format_version": FORMAT_VERSION, "kind": kind, "vocabulary_hash": vocabulary_hash}
    return content | {"model": content["model"] | {"tinyllm": mark}}


def signature(content, path):
    """(kind, vocabulary hash) of a tokenizer.json; the hash is None for another project's, without our mark."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise UserError(f"{path} is not a tokenizer.json: it has no model; was it damaged, or is it another file?")
    if "tinyllm" not in model:
        if model.get("type") == "WordPiece":
            return "wordpiece", None
        # SentencePiece's mark is its letter for a space, in what is done to the text.
        steps = f"{content.get('normalizer')} {content.get('pre_tokenizer')}"
        return "sentencepiece_bpe" if model.get("byte_fallback") is True or "▁" in steps else "bpe", None
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


def bpe_json(tokens, special_tokens, merges, pattern, *, normalizer=None, add_prefix_space=False, ignore_merges=False):
    """tokenizer.json of a byte-level BPE.

    tokens: dict id -> bytes; special_tokens: dict name -> id; merges: list of id pairs; pattern: None not to split;
    the others as in BPETokenizer.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": False}
    pre_tokenizer = byte_level
    if add_prefix_space:  # only with GPT-2's pattern, and in one step: after a Split every piece would get its space
        pre_tokenizer = byte_level | {"use_regex": True}
    elif pattern is not None:
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
        "ignore_merges": ignore_merges,
        "vocab": {spell(content): token for token, content in tokens.items()} | special_tokens,
        # As text and not as a pair: that is what older versions of `tokenizers` read, and the new ones too.
        "merges": [f"{spell(tokens[left])} {spell(tokens[right])}" for left, right in merges],
    }
    normalizer = None if normalizer is None else {"type": normalizer}
    return tokenizer_json(model, special_tokens, pre_tokenizer, decoder=byte_level, normalizer=normalizer)


def tokenizer_json(model, special_tokens, pre_tokenizer, decoder, normalizer=None):
    """The frame of every tokenizer.json around its model."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(name, token, special=True) for name, token in special_tokens.items()],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def added_token(name, token, special):
    """The entry of a special or an added token in a tokenizer.json."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": token, "content": name, **flags}


def named_tokens_of(content):
    """(special tokens, added tokens) of a tokenizer.json, both dicts name -> id."""
    special_tokens, added_tokens = {}, {}
    for token in content.get("added_tokens") or []:
        name = token["content"]
        flags = [flag for flag in ("single_word", "lstrip", "rstrip") if token.get(flag)]
        flags += ["normalized"] if token.get("normalized") and content.get("normalizer") is not None else []
        if flags:
            raise UserError(
                f"added token {name!r} is matched by rules ({', '.join(flags)}) that tinyllm lacks; set them to false "
                "in the file if you can do without them"
            )
        if name in special_tokens or name in added_tokens:
            raise UserError(f"added token {name!r} occurs twice; name each once")
        (special_tokens if token.get("special", True) else added_tokens)[name] = token["id"]
    return special_tokens, added_tokens


def special_tokens_of(content):
    """Dict name -> id of the special tokens of a tokenizer.json."""
    return named_tokens_of(content)[0]


def vocabulary_of(content):
    """Dict spelling -> id of the ordinary tokens of a tokenizer.json; UserError where an id is none or occurs twice."""
    special_tokens, added_tokens = named_tokens_of(content)
    return ordinary_part(content["model"]["vocab"], special_tokens | added_tokens)


def ordinary_part(vocabulary, named):
    """A vocabulary (dict spelling -> id) without the names in it; UserError where an id is none or occurs twice."""
    spellings = {}
    for spelling, token in vocabulary.items():
        if spelling in named:
            if named[spelling] != token:
                raise UserError(f"the vocabulary gives {spelling!r} the id {token}, added_tokens {named[spelling]}")
            continue
        check_id(token)
        if token in spellings:
            raise UserError(f"an id occurs twice in the vocabulary: {token} is {spellings[token]!r} and {spelling!r}")
        spellings[token] = spelling
    return {spelling: token for token, spelling in spellings.items()}


def pairs_of(merges, vocabulary):
    """Merges as a list of id pairs, from pairs of spellings or texts "left right" with one space."""
    pairs = []
    for number, merge in enumerate(merges):
        sides = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(sides, (list, tuple)) or len(sides) != 2:
            raise UserError(f"merge {number} must be two tokens, got {merge!r}; is the file damaged?")
        unknown = [side for side in sides if side not in vocabulary]
        if unknown:
            raise UserError(f"merge {number} ({merge!r}) joins {unknown[0]!r}, which is not in the vocabulary")
        pairs.append((vocabulary[sides[0]], vocabulary[sides[1]]))
    return pairs


def bpe_from_json(content):
    """The arguments of BPETokenizer, as a dict, that a tokenizer.json describes."""
    model = content["model"]
    # Old files name no type; the merges tell.
    expect(model.get("type", "BPE" if "merges" in model else None), ["BPE"], "model type")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        expect(model.get(option), [None, "", 0, False], option)
    vocabulary = vocabulary_of(content)
    pattern, add_prefix_space = splitting_of(content["pre_tokenizer"])
    expect(model.get("ignore_merges"), [None, False, True], "ignore_merges")
    return {
        "tokens": tokens_of(vocabulary),
        "merges": pairs_of(model["merges"], vocabulary),
        "pattern": pattern,
        "special_tokens": special_tokens_of(content),
        "normalizer": normal_form_of(content.get("normalizer")),
        "add_prefix_space": add_prefix_space,
        "ignore_merges": bool(model.get("ignore_merges")),
    }


def expect(value, accepted, what, kind="byte-level BPE"):
    """UserError unless the tokenizer.json says one of the `accepted` values."""
    if value not in accepted:
        raise UserError(f"expected {kind} with {what} {accepted[0]!r}, got {value!r}, which tinyllm lacks")


def normal_form_of(normalizer):
    """The Unicode normal form that a normalizer brings text to, or None."""
    if normalizer is None:
        return None
    expect(normalizer, [None, *({"type": form} for form in NORMAL_FORMS)], "normalizer")
    return normalizer["type"]


def splitting_of(pre_tokenizer):
    """(pattern, add_prefix_space) of a byte-level pre-tokenizer, alone or after one Split."""
    pre_tokenizer = pre_tokenizer or {"type": None}
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    expect([step["type"] for step in steps], [["Split", "ByteLevel"], ["ByteLevel"]], "pre-tokenizers")
    byte_level = steps[-1]
    add_prefix_space = byte_level["add_prefix_space"]
    expect(add_prefix_space, [False, True], "add_prefix_space")
    uses_gpt2 = byte_level.get("use_regex", True)
    if len(steps) == 1:
        expect(uses_gpt2 or not add_prefix_space, [True], "use_regex (with add_prefix_space)")
        return PATTERNS["gpt2"] if uses_gpt2 else ANYTHING, add_prefix_space
    split = steps[0]
    expect(add_prefix_space, [False], "add_prefix_space (after a Split)")
    expect(uses_gpt2, [False], "use_regex (after a Split)")
    expect((split["behavior"], split["invert"]), [("Isolated", False)], "behavior and invert of Split")
    return split["pattern"]["Regex"], False


def tokens_of(vocabulary):
    """Tokens (dict id -> bytes) from a vocabulary in GPT-2's printable spelling (dict spelling -> id)."""
    tokens = {}
    for spelling, token in vocabulary.items():
        try:
            tokens[token] = unspell(spelling)
        except KeyError as error:
            raise UserError(f"the token {spelling!r} (id {token}) is not in bytes: {error} spells none") from None
    return tokens
